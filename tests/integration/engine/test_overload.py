"""Far more requests than there is room for: each ends exactly once, with an answer or a typed refusal, and nothing leaks."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from decoder_service.engine_loop import EngineLoop, Submission
from decoder_service.kv_cache.cache import Copy
from decoder_service.request import NO_DEADLINE, EngineRequest, Pruning, Result
from decoder_service.runner.runner import Runner, SequenceOutput
from decoder_service.sequence import Piece
from tests.support.engines import make_engine, make_runner
from tests.support.language_models import ask, lay_out, random_image, random_language
from tests.support.until import until
from vscan.errors import ResourceExhausted, VScanError
from vscan.rpc.deadlines import Deadline
from vscan.specs import KeepTokens, Rater

PATIENCE_S = 120
MAX_QUEUE = 64
PRUNED = Pruning(layers=(2, 4), budgets=(KeepTokens(6), KeepTokens(2)), rater=Rater.LAST_TOKEN)


class WatchedRunner(Runner):
    """Calls `watch` before each step."""

    def watch(self) -> None:
        """Set by the test."""

    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        self.watch()
        return super().run(pieces, copies)


def draw(generator: random.Random, place: int) -> EngineRequest:
    """Four tenants, of whom one asks most; few images; some with little time."""
    image = random_image(10, hidden=32, seed=generator.randrange(4))
    deadline = Deadline(time.monotonic() + generator.choice([0.0, 0.2])) if generator.random() < 0.1 else NO_DEADLINE
    request = ask(
        lay_out([[1, 5], image, [9, 11 + place % 40]]),
        pruning=generator.choice([PRUNED, PRUNED, Pruning()]),
        max_new_tokens=generator.randint(1, 24),
        tenant=generator.choice(["acme"] * 6 + ["zoo", "bar", "baz"]),
        name=f"r{place}",
    )
    return replace(request, priority=generator.choice([-1, 0, 0, 1]), deadline=deadline)


async def submit_all(loop: EngineLoop, requests: Sequence[EngineRequest]) -> tuple[list[Submission], Counter[str]]:
    accepted, refused = [], Counter[str]()
    for request in requests:
        try:
            accepted.append(await loop.submit(request))
        except ResourceExhausted as error:
            refused[request.tenant if error.retry_delay_ms > 0 else "no delay"] += 1
    return accepted, refused


async def ending(submission: Submission) -> str:
    """How it ended; nothing may come after that."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            events = [event async for event in submission]
        assert isinstance(events[-1], Result)
        ended = "result"
    except VScanError as error:
        ended = "no delay" if isinstance(error, ResourceExhausted) and error.retry_delay_ms < 1 else type(error).__name__
    assert submission._mailbox.unread == 0
    return ended


@pytest.fixture(scope="module")
def model() -> Any:
    return random_language()


@pytest.mark.parametrize("pages", [64, 130, 4096])
@pytest.mark.parametrize("seed", range(3))
async def test_two_hundred_at_once_on_a_queue_of_64(model: Any, seed: int, pages: int) -> None:
    generator = random.Random(seed)
    runner = make_runner(model, WatchedRunner, pages=pages)
    spare_blocks = 0 if pages == 64 else 4
    engine = make_engine(
        model, runner=runner, max_running=8, max_waiting=MAX_QUEUE, max_step_rows=32, spare_blocks=spare_blocks
    )
    most_fresh: list[int] = []
    submitted = threading.Event()

    def watch() -> None:
        assert submitted.wait(PATIENCE_S)
        engine.check_integrity()
        most_fresh.append(sum(engine._scheduler._queue.fresh.values()))

    runner.watch = watch  # type: ignore[method-assign]
    loop = EngineLoop(engine)
    loop.start()
    try:
        accepted, refused = await submit_all(loop, [draw(generator, place) for place in range(200)])
        for submission in generator.sample(accepted, 10):
            loop.cancel(submission.request_id)
        submitted.set()
        ends = Counter(await asyncio.gather(*map(ending, accepted)))
        await until(lambda: loop.figures.running == loop.figures.waiting == 0)
        assert loop._mailboxes == {}
        assert all(segment.rows == segment.blocks == 0 for segment in loop.figures.segments)
    finally:
        submitted.set()
        loop.stop()
    engine.check_integrity()
    assert engine.idle
    assert set(ends) <= {"result", "Cancelled", "DeadlineExceeded", "ResourceExhausted"}
    assert ends.total() + refused.total() == 200
    assert ends["result"] >= MAX_QUEUE // 2
    assert max(most_fresh) <= MAX_QUEUE
    # Whoever asks most is refused, and gives way to the others.
    assert ends["ResourceExhausted"] > 0
    assert refused["acme"] > 0
    assert refused["no delay"] == 0
    if pages == 64:
        assert engine.figures.preemptions > 0


async def test_one_tenant_that_fills_the_queue_does_not_keep_another_out(model: Any) -> None:
    runner = make_runner(model, WatchedRunner)
    loop = EngineLoop(make_engine(model, runner=runner, max_running=1, max_waiting=6))
    loop.start()

    def one(tenant: str) -> EngineRequest:
        return ask(lay_out([[1, 5, 7]]), max_new_tokens=400, tenant=tenant)

    try:
        running = await loop.submit(one("acme"))
        await anext(running)
        greedy = [await loop.submit(one("acme")) for _ in range(6)]
        modest = [await loop.submit(one("zoo")) for _ in range(3)]
        for tenant in ("acme", "zoo"):
            with pytest.raises(ResourceExhausted):
                await loop.submit(one(tenant))
        assert [await ending(late) for late in greedy[3:]] == ["ResourceExhausted"] * 3
        for submission in (running, *greedy[:3], *modest):
            loop.cancel(submission.request_id)
        assert Counter([await ending(each) for each in (*greedy[:3], *modest)]) == {"Cancelled": 6}
    finally:
        loop.stop()
