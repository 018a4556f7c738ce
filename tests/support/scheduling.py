"""A scheduler and its cache without a device: requests that sample as soon as they can, step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from decoder_service.kv_cache.cache import KvCache
from decoder_service.kv_cache.segments import KvShape, PageLayout, split_layers
from decoder_service.request import EngineRequest, ImageSpan, Prompt, Pruning, Sampling, State
from decoder_service.scheduler import Scheduler, Step
from decoder_service.sequence import Sequence
from vscan.specs import KeepTokens, Rater

LAYOUT = PageLayout(split_layers(4, (2,)), 4, KvShape(1, 2, 2, 4))


def sequence(
    name: str, rows: int = 10, *, new: int = 4, tenant: str = "default", priority: int = 0, samples: int = 1
) -> Sequence:
    """All text; each of its rows is another one than those of other names."""
    prompt = Prompt(tuple(hash((name, row)) for row in range(rows)))
    return _sequence(prompt, Pruning(), request_id=name, new=new, samples=samples, tenant=tenant, priority=priority)


def pruned(name: str, text: int, visual: int, kept: int, *, new: int = 4) -> Sequence:
    """Text, visual tokens, and one more row of text."""
    prompt = Prompt(tuple(range(text + visual + 1)), (ImageSpan(0, text, visual),), (None,))  # type: ignore[arg-type]
    return _sequence(prompt, _keep(kept), request_id=name, new=new)


def about(
    image: bytes, name: str, *, text: int = 4, visual: int = 40, asked: int = 6, kept: int | None = 10, **fields: Any
) -> Sequence:
    """A question of `asked` rows, its own, about an image, behind `text` rows that all have; `kept` None: not pruned."""
    ids = (*range(text), *[0] * visual, *(hash((name, row)) for row in range(asked)))
    prompt = Prompt(ids, (ImageSpan(0, text, visual),), (None,), (image,))  # type: ignore[arg-type]
    return _sequence(prompt, Pruning() if kept is None else _keep(kept), request_id=name, **fields)


def _keep(count: int) -> Pruning:
    return Pruning(layers=(2,), budgets=(KeepTokens(count),), rater=Rater.LAST_TOKEN)


def _sequence(prompt: Prompt, pruning: Pruning, *, new: int = 4, samples: int = 1, **fields: Any) -> Sequence:
    sampling = Sampling(max_new_tokens=new, n=samples)
    return Sequence(EngineRequest(prompt=prompt, sampling=sampling, pruning=pruning, **fields), LAYOUT.segments)


def scheduler(pages: int = 100, reuse: bool = True, **limits: Any) -> Scheduler:
    cache = KvCache(LAYOUT, pages=pages, reuse=reuse)
    return Scheduler(cache, **({"max_context_tokens": 100, "max_running": 2, "max_waiting": 3} | limits))


def ran(step: Step) -> dict[str, tuple[int, ...]]:
    """Rows of each segment, by name."""
    return {piece.sequence.name: tuple(piece.rows(segment.index) for segment in LAYOUT.segments) for piece in step.pieces}


def advance(own: Scheduler) -> dict[str, tuple[int, ...]]:
    """A step in which every sequence that can gets a token."""
    step = own.schedule()
    rows = ran(step)
    own.advance(step)
    for piece in step.pieces:
        for each in samples_of(own, piece.sequence) if piece.samples else ():
            each.append(hash((each.name, each.generated)))
    own._cache.check_integrity()
    return rows


def samples_of(own: Scheduler, first: Sequence) -> list[Sequence]:
    """A sequence, and beside it the other samples of its request, which begin now if its prompt has just run."""
    forks = [own.fork(first, sample) for sample in range(1, first.samples)]
    first.samples = 1
    return [first, *forks]


class Simulation:
    """Steps a scheduler, ends answers at their length, and counts.

    Args:
        then: called with each request that has finished; what it returns is added.
    """

    def __init__(self, own: Scheduler, *, then: Callable[[Sequence], Iterable[Sequence]] = lambda _: ()) -> None:
        self.own = own
        self.then = then
        self.steps = 0
        self.alive: dict[str, Sequence] = {}  # each sample by its own name
        self.rows: Counter[str] = Counter()  # of segment 0, by name
        self.work: Counter[str] = Counter()  # rows x layers, by tenant
        self.first_token: dict[str, int] = {}  # the step it came in
        self.ended: dict[str, State] = {}

    def add(self, *sequences: Sequence) -> None:
        """Accepted at once."""
        for each in sequences:
            self.alive[each.request_id] = each
            loser = self.own.add(each)
            if loser is not None:
                self.end(loser, State.FAILED)

    def end(self, each: Sequence, to: State) -> None:
        """Ends a request, or where it has finished one of its samples; once only."""
        together = [other for other in self.alive.values() if other.request_id == each.request_id]
        ending = [each] if to is State.FINISHED else together
        for place, one in enumerate(ending, 1):
            del self.alive[one.name]
            self.own.remove(one, to, last=place == len(together))
        if len(ending) == len(together):
            assert self.ended.setdefault(each.request_id, to) is to

    def step(self) -> dict[str, tuple[int, ...]]:
        """One step; the rows that ran."""
        self.steps += 1
        rows = advance(self.own)
        begun = {each.name: each for each in self.own._running.values() if each.name not in self.alive}
        self.alive |= begun
        for name, counts in rows.items():
            each = self.alive[name]
            self.rows[name] += counts[0]
            pairs = zip(LAYOUT.segments, counts, strict=True)
            self.work[each.request.tenant] += sum(segment.layers * count for segment, count in pairs)
            if each.generated:
                self.first_token.setdefault(name, self.steps)
        for each in [self.alive[name] for name in (*rows, *begun)]:
            if each.generated == each.request.sampling.max_new_tokens:
                self.end(each, State.FINISHED)
                self.add(*(self.then(each) if each.request_id in self.ended else ()))
        return rows

    def run(self, *, most_steps: int = 5000) -> None:
        """Until nothing is left to do."""
        while self.alive:
            self.step()
            assert self.steps < most_steps, f"{len(self.alive)} requests do not end"

    @property
    def held_blocks(self) -> int:
        """Of segment 0, by those that run."""
        return self.own._cache.usage()[0].blocks
