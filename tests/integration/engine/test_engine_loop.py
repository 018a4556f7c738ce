"""The engine on its thread: every accepted request ends exactly once, whatever happens."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from decoder_service.engine_loop import EngineLoop, Submission
from decoder_service.kv_cache.cache import Copy
from decoder_service.request import Delta, EngineRequest, FinishReason, Pruning, Result
from decoder_service.runner.runner import Runner, SequenceOutput
from decoder_service.sequence import Piece
from tests.support.engines import PAGES, make_engine, make_runner
from tests.support.language_models import ask, lay_out, random_image, random_language
from tests.support.until import until
from vscan.errors import Cancelled, InternalError, InvalidArgument, ResourceExhausted, Unavailable, VScanError
from vscan.specs import KeepTokens, Rater

PATIENCE_S = 60
PRUNED = Pruning(layers=(2, 4), budgets=(KeepTokens(6), KeepTokens(2)), rater=Rater.LAST_TOKEN)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_language()


class GatedRunner(Runner):
    """Runs a step only when the gate is open; may break, once told."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.fault: BaseException | None = None
        self.prepared: list[tuple[str, dict[str, int], bool]] = []

    def prepare(self, **limits: int) -> None:
        self.prepared.append((threading.current_thread().name, limits, self.entered.is_set()))
        super().prepare(**limits)

    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return super().run(pieces, copies)


def question(picture: int = 1, **fields: Any) -> EngineRequest:
    prompt = lay_out([[1, 5], random_image(10, hidden=32, seed=picture), [9, 11]])
    stated: dict[str, Any] = {"pruning": PRUNED, "max_new_tokens": 5} | fields
    return ask(prompt, **stated)


@asynccontextmanager
async def running(
    model: Any, *, on_death: Callable[[], None] | None = None, pages: int = PAGES, max_unread_events: int = 1024, **limits: Any
) -> AsyncIterator[tuple[EngineLoop, Any]]:
    runner = make_runner(model, GatedRunner, pages=pages)
    loop = EngineLoop(make_engine(model, runner=runner, **limits), on_death=on_death, max_unread_events=max_unread_events)
    loop.start()
    try:
        yield loop, runner
    finally:
        runner.gate.set()
        loop.stop()


async def collect(submission: Submission) -> list[Delta | Result]:
    return [event async for event in submission]


async def first_event(submission: Submission) -> Delta | Result:
    async with asyncio.timeout(PATIENCE_S):
        return await anext(submission)


async def outcome(submission: Submission) -> str:
    """How it ended; consumes everything, and checks that nothing follows the end."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            events = await collect(submission)
        assert isinstance(events[-1], Result)
        assert sum(isinstance(event, Result) for event in events) == 1
        ended = "result"
    except VScanError as error:
        ended = type(error).__name__
    assert [event async for event in submission] == []
    return ended


async def assert_serves(loop: EngineLoop) -> None:
    assert await outcome(await loop.submit(question())) == "result"


async def test_deltas_and_then_a_result(model: Any) -> None:
    async with running(model) as (loop, _):
        events = await collect(await loop.submit(question(max_new_tokens=4)))
    assert [type(event) for event in events] == [Delta] * 4 + [Result]
    assert isinstance(events[-1], Result)
    assert events[-1].reason is FinishReason.LENGTH


async def test_several_at_once_get_each_their_own(model: Any) -> None:
    async with running(model, max_running=3) as (loop, _):
        submissions = [await loop.submit(question(max_new_tokens=count)) for count in (3, 7, 5, 2, 4)]
        answers = await asyncio.gather(*(collect(submission) for submission in submissions))
    assert [answer[-1].completion_tokens for answer in answers if isinstance(answer[-1], Result)] == [3, 7, 5, 2, 4]


async def test_a_full_queue_refuses_and_serves_again_when_it_has_room(model: Any) -> None:
    async with running(model, max_running=1, max_waiting=2) as (loop, runner):
        runner.gate.clear()
        first = await loop.submit(question())
        await until(runner.entered.is_set)
        waiting = [await loop.submit(question()) for _ in range(2)]
        assert loop.figures.waiting == 2
        with pytest.raises(ResourceExhausted) as refused:
            await loop.submit(question())
        assert refused.value.retry_delay_ms > 0
        runner.gate.set()
        assert [await outcome(one) for one in (first, *waiting)] == ["result"] * 3
        await assert_serves(loop)


async def test_what_can_never_be_served_is_refused_at_the_door(model: Any) -> None:
    async with running(model) as (loop, _):
        with pytest.raises(InvalidArgument, match="max_new_tokens"):
            await loop.submit(question(max_new_tokens=5000))
        await assert_serves(loop)


async def test_many_visual_tokens_are_looked_at_away_from_the_event_loop(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(model) as (loop, _):
        threads: list[threading.Thread] = []
        check = loop._engine.check

        def watched(request: EngineRequest) -> None:
            threads.append(threading.current_thread())
            check(request)

        monkeypatch.setattr(loop._engine, "check", watched)
        await loop.submit(question())
        many = random_image(600, hidden=32, seed=1)
        many.tokens[599, 31] = float("nan")
        with pytest.raises(InternalError, match="no numbers"):
            await loop.submit(ask(lay_out([[1], many, [2]])))
        assert threads[0] is threading.current_thread()
        assert threads[1] is not threading.current_thread()


async def test_a_name_in_use_is_refused(model: Any) -> None:
    async with running(model) as (loop, runner):
        runner.gate.clear()
        first = await loop.submit(question(name="same"))
        with pytest.raises(InvalidArgument, match="request_id"):
            await loop.submit(question(name="same"))
        runner.gate.set()
        assert await outcome(first) == "result"
        assert await outcome(await loop.submit(question(name="same"))) == "result"


async def test_cancelling_ends_the_stream_and_frees_the_place(model: Any) -> None:
    async with running(model, max_running=1) as (loop, _):
        submission = await loop.submit(question(max_new_tokens=400))
        await first_event(submission)
        loop.cancel(submission.request_id)
        with pytest.raises(Cancelled):
            await collect(submission)
        await assert_serves(loop)
        assert loop.figures.running == 0


async def leave_by_closing(submission: Submission) -> None:
    await submission.aclose()


async def leave_by_block(submission: Submission) -> None:
    async with submission:
        pass


async def leave_by_cancelled_task(submission: Submission) -> None:
    task = asyncio.create_task(collect(submission))
    await asyncio.sleep(0)  # it waits for the next event now
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [leave_by_closing, leave_by_block, leave_by_cancelled_task])
async def test_who_leaves_is_cancelled(model: Any, leave: Callable[[Submission], Any]) -> None:
    async with running(model) as (loop, _):
        submission = await loop.submit(question(max_new_tokens=400))
        await first_event(submission)
        await leave(submission)
        await until(lambda: loop.figures.running == 0)
        assert [event async for event in submission] == []
        await assert_serves(loop)


async def test_a_dropped_submission_is_cancelled(model: Any) -> None:
    async with running(model) as (loop, _):
        submission = await loop.submit(question(max_new_tokens=400))
        await first_event(submission)
        del submission
        gc.collect()
        await until(lambda: loop.figures.running == 0)


async def test_stopping_ends_what_runs_and_what_waits(model: Any) -> None:
    async with running(model, max_running=1) as (loop, runner):
        runner.gate.clear()
        submissions = [await loop.submit(question(max_new_tokens=400)) for _ in range(4)]
        await until(runner.entered.is_set)
        stopping = asyncio.create_task(asyncio.to_thread(loop.stop))
        await until(lambda: loop._stopping)
        with pytest.raises(Unavailable):
            await loop.submit(question())
        runner.gate.set()
        await stopping
        assert [await outcome(one) for one in submissions] == ["Unavailable"] * 4
        assert not loop.alive


async def test_nothing_is_accepted_before_the_start(model: Any) -> None:
    loop = EngineLoop(make_engine(model))
    with pytest.raises(Unavailable):
        await loop.submit(question())
    loop.stop()


async def test_who_waits_and_runs_is_known_while_a_step_does_not_end(model: Any) -> None:
    """Of a step that hangs nothing else is to be seen: an engine with nobody in it would seem idle."""
    async with running(model, max_running=1) as (loop, runner):
        runner.gate.clear()
        submissions = [await loop.submit(question(picture)) for picture in (1, 2, 3)]
        assert loop.figures.waiting + loop.figures.running == 3
        await asyncio.to_thread(runner.entered.wait, PATIENCE_S)
        assert (loop.figures.waiting, loop.figures.running) == (2, 1)
        runner.gate.set()
        assert [await outcome(each) for each in submissions] == ["result"] * 3
        await until(lambda: loop.figures.waiting == loop.figures.running == 0)


async def test_a_dead_thread_fails_everybody_and_says_so(model: Any) -> None:
    died = threading.Event()
    async with running(model, max_running=1, on_death=died.set) as (loop, runner):
        runner.gate.clear()
        submissions = [await loop.submit(question()) for _ in range(3)]
        await until(runner.entered.is_set)
        runner.fault = KeyboardInterrupt("secret inner text")
        runner.gate.set()
        assert [await outcome(one) for one in submissions] == ["InternalError"] * 3
        await until(died.is_set)
        assert not loop.alive
        with pytest.raises(InternalError) as refused:
            await loop.submit(question())
        assert "secret" not in str(refused.value)


async def test_a_broken_step_leaves_the_thread_alive(model: Any) -> None:
    async with running(model) as (loop, runner):
        runner.fault = RuntimeError("once")
        assert await outcome(await loop.submit(question())) == "InternalError"
        runner.fault = None
        await assert_serves(loop)


@pytest.mark.parametrize("seed", range(4))
async def test_every_accepted_request_ends_once_under_a_random_schedule(model: Any, seed: int) -> None:
    generator = random.Random(seed)
    accepted: list[asyncio.Task[str]] = []
    live: list[Submission] = []
    refused = 0
    async with running(model, max_running=3, max_waiting=5) as (loop, runner):
        for _ in range(120):
            action = generator.choice(["submit", "submit", "submit", "cancel", "close", "rest", "break"])
            if action == "submit":
                try:
                    length, samples = generator.randint(1, 12), generator.choice([1, 1, 2, 3])
                    submission = await loop.submit(question(max_new_tokens=length, n=samples, temperature=1.0))
                except ResourceExhausted:
                    refused += 1
                else:
                    accepted.append(asyncio.create_task(outcome(submission)))
                    live.append(submission)
            elif action == "cancel" and live:
                loop.cancel(generator.choice(live).request_id)
            elif action == "rest":
                await until(lambda: loop.figures.waiting < 3)
            elif action == "break" and generator.random() < 0.2:
                runner.fault = RuntimeError("a bad step")
                await asyncio.sleep(0)
                runner.fault = None
        ends = Counter(await asyncio.gather(*accepted))
        await until(lambda: loop.figures.running == loop.figures.waiting == 0)
        assert all(segment.rows == 0 for segment in loop.figures.segments)
        loop._engine.check_integrity()
        await assert_serves(loop)
    assert sum(ends.values()) == len(accepted)
    assert set(ends) <= {"result", "Cancelled", "InternalError"}
    assert ends["result"] > 0
    assert len(accepted) + refused > 20


async def test_two_hundred_at_once_on_a_queue_of_64_end_once_each(model: Any) -> None:
    generator = random.Random(0)
    async with running(model, max_running=8, max_waiting=64, pages=120, max_step_rows=32) as (loop, runner):
        runner.gate.clear()
        accepted, refused = [], 0
        for number in range(200):
            try:
                length, samples = generator.randint(1, 12), generator.choice([1, 1, 2, 4])
                request = question(number % 5, max_new_tokens=length, n=samples, temperature=1.0, tenant=f"t{number % 3}")
                accepted.append(await loop.submit(request))
            except ResourceExhausted:
                refused += 1
        runner.gate.set()
        for submission in accepted[::9]:
            submission.close()
        ends = Counter(await asyncio.gather(*(outcome(one) for place, one in enumerate(accepted) if place % 9)))
        await until(lambda: loop.figures.running == loop.figures.waiting == 0)
        assert all(segment.rows == segment.blocks == 0 for segment in loop.figures.segments)
        loop._engine.check_integrity()
        assert loop.figures.reused_rows > 0
    assert set(ends) == {"result"}
    assert len(accepted) + refused == 200
    assert 64 <= len(accepted) <= 64 + 8


async def test_what_is_done_once_is_done_before_the_first_step_and_on_its_thread(model: Any) -> None:
    async with running(model, max_running=3, max_context_tokens=100) as (loop, runner):
        for _ in range(2):
            await collect(await loop.submit(question()))
    assert runner.prepared == [("engine", {"most_sequences": 3, "most_rows": 100}, False)]


async def test_a_device_that_is_gone_before_the_first_step_is_told_of(model: Any) -> None:
    died = threading.Event()
    runner = make_runner(model, GatedRunner)
    runner.prepare = gone  # type: ignore[method-assign]
    loop = EngineLoop(make_engine(model, runner=runner), on_death=died.set)
    loop.start()
    assert died.wait(PATIENCE_S)
    assert not loop.alive
    with pytest.raises(InternalError):
        await loop.submit(question())
    loop.stop()


def gone(**limits: int) -> None:
    raise RuntimeError("the device is gone")


@pytest.mark.parametrize("samples", [1, 3])
async def test_an_answer_that_nobody_reads_ends_and_what_was_made_can_be_read(model: Any, samples: int) -> None:
    async with running(model, max_unread_events=10, max_running=4) as (loop, _):
        submission = await loop.submit(question(max_new_tokens=400, n=samples))
        await until(lambda: submission.request_id not in loop._mailboxes, what="the answer to end")
        read: list[object] = []

        async def read_all() -> None:
            while True:
                read.append(await anext(submission))

        with pytest.raises(ResourceExhausted, match="not read: 10 events wait"):
            await read_all()
        assert 10 < len(read) <= 10 + samples
        assert all(isinstance(event, Delta) for event in read)
        await assert_serves(loop)
        loop._engine.check_integrity()
