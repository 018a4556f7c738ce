"""Who runs in the next step, and with how many rows. No torch here.

    waiting  d c ──▶ running  a b          a step = one row of each sequence that decodes, and of the
         ◀── preempted when pages run out  prompts as many rows as are left

Room in the cache is taken before a row is scheduled: for all of a prompt when it begins, block by block for its answer.
`fair_queue.py` says who is next, `followers.py` who should rather wait, `step_rows.py` how prompts share a step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from decoder_service.fair_queue import FairQueue
from decoder_service.followers import Followers, Makers
from decoder_service.kv_cache.cache import Copy, KvCache, Tables
from decoder_service.request import State
from decoder_service.sequence import Piece, Sequence
from decoder_service.step_rows import share_rows
from decoder_service.waiting_places import has_place, who_gives_way
from vscan.errors import InvalidArgument, ResourceExhausted

# Told to a caller that finds the queue full, before an answer's usual duration is known; and the bounds of that estimate.
_FIRST_ESTIMATE_MS = 1000.0
_LEAST_RETRY_MS = 100
_LONGEST_RETRY_MS = 30_000
_NEWEST_WEIGHT = 0.2
# So many times `spare_blocks` when a request begins again that gave way.
_AGAIN = 2


@dataclass(frozen=True, slots=True)
class Step:
    """What one step runs, in the order of its rows; `copies` come before."""

    pieces: tuple[Piece, ...]
    copies: tuple[Copy, ...] = ()


class _Room(NamedTuple):
    """What decides whether one that found no room may find some."""

    available: int  # pages
    made: int  # blocks that can be found, since the start
    left: int  # sequences, since the start


class Scheduler:
    """Owned by the engine's thread; `check`, `check_room` and `retry_delay_ms` may be called from any.

    Args:
        cache: where rows get room.
        max_running: sequences in one step, each sample of a request being one; at most `max_step_rows`, since each takes a row.
        max_waiting: accepted requests that have not run yet.
        max_context_tokens: rows of a prompt and its answer together.
        max_step_rows: rows of one step in each segment; a longer prompt runs in pieces.
        spare_blocks: that must be left in each segment for each answer under way when another request begins. Four cut
            what is run twice in tight memory by 40 to 80 %, for up to a tenth more steps.
    """

    def __init__(
        self,
        cache: KvCache,
        *,
        max_context_tokens: int,
        max_running: int = 8,
        max_waiting: int = 64,
        max_step_rows: int = 2048,
        spare_blocks: int = 4,
    ) -> None:
        if min(max_context_tokens, max_running, max_waiting, max_step_rows) < 1:
            raise ValueError("every limit of the scheduler is at least 1")
        self.preemptions = 0  # since the start
        self._cache = cache
        self.max_context_tokens = max_context_tokens
        self.max_running = min(max_running, max_step_rows)
        self._max_waiting = max_waiting
        self._max_step_rows = max_step_rows
        self._spare_blocks = spare_blocks
        self._queue = FairQueue()
        self._followers = Followers(cache)
        self._running: dict[str, Sequence] = {}  # by when they began, a sample when the prompt was there whole
        self._stuck: tuple[Sequence, _Room] | None = None  # who found no room, and what there was
        self._left = 0  # how often a sequence left the batch
        self._usual_ms = _FIRST_ESTIMATE_MS

    @property
    def waiting(self) -> int:
        """Requests accepted and not running."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Sequences in the batch."""
        return len(self._running)

    def check(self, sequence: Sequence) -> None:
        """Raises InvalidArgument if such a request can never run."""
        rows, asked = sequence.request.prompt.rows, sequence.request.sampling.max_new_tokens
        if sequence.samples > self.max_running:
            raise InvalidArgument("sampling.n", f"{sequence.samples}", limit=f"{self.max_running} run at once")
        limit = f"{self.max_context_tokens} tokens of prompt and answer together"
        if rows >= self.max_context_tokens:
            raise InvalidArgument("prompt", f"{rows} tokens", limit=limit)
        if rows + asked > self.max_context_tokens:
            raise InvalidArgument("sampling.max_new_tokens", f"{asked} after {rows} of prompt", limit=limit)
        if not self._cache.fits(sequence.most_rows(), sequence.prompt_rows, samples=sequence.samples):
            held = self._cache.pages * self._cache.layout.page_bytes >> 20
            answers = "the answer" if sequence.samples == 1 else f"each of {sequence.samples} answers"
            raise InvalidArgument("prompt", f"{rows} tokens and {asked} of {answers}", limit=f"{held} MiB of KV cache")

    def check_room(self, tenant: str, on_the_way: Iterable[str] = ()) -> None:
        """Raises ResourceExhausted if no further request of `tenant` may wait.

        Args:
            on_the_way: the tenants of those that were accepted, in order, and not added yet.
        """
        coming = [*on_the_way, tenant]
        if not has_place(self._queue.fresh, coming, limit=self._max_waiting):
            raise ResourceExhausted(
                f"{self._max_waiting} requests wait, which is the limit", retry_delay_ms=self.retry_delay_ms()
            )

    def retry_delay_ms(self) -> int:
        """When one may come back who finds the queue full."""
        delay_ms = self._usual_ms * self._max_waiting / self.max_running
        return int(min(max(delay_ms, _LEAST_RETRY_MS), _LONGEST_RETRY_MS))

    def add(self, sequence: Sequence) -> Sequence | None:
        """Takes an accepted request. Returns the one that must give way to it: it waits and should be removed now."""
        counts, tenant = self._queue.fresh, sequence.request.tenant
        loser = who_gives_way(counts, tenant) if sum(counts.values()) >= self._max_waiting else None
        self._queue.add(sequence)
        return None if loser is None else self._queue.youngest(loser)

    def schedule(self) -> Step:
        """The next step. Requests that begin with it are running from here on."""
        self._make_room()
        while self._begin_next():
            pass
        missing = {sequence: sequence.missing for sequence in self._running.values()}
        decoding = [sequence for sequence, rows in missing.items() if rows == 1]
        prompts = [sequence for sequence, rows in missing.items() if rows > 1]
        shares = share_rows(self._max_step_rows - len(decoding), [missing[sequence] for sequence in prompts])
        allowed = [*((sequence, 1) for sequence in decoding), *zip(prompts, shares, strict=True)]
        pieces = tuple(Piece(sequence, sequence.ranges(rows)) for sequence, rows in allowed if rows)
        return Step(pieces, tuple(self._cache.take_copies()))

    def advance(self, step: Step) -> None:
        """The step has run: the rows of its pieces are held. Whose last row gave a token has rows of numbers throughout."""
        for piece in step.pieces:
            self._queue.got(piece.sequence, piece.sequence.reach(piece.ends))
            self._cache.commit(piece.sequence.tables, piece.ends, piece.sequence.rows, proven=piece.samples)

    def broke(self, step: Step) -> None:
        """The step failed, and its requests were removed: `step.copies` may not have been made. Who is left and was to write
        into one of them gives way, and runs its rows again.
        """
        unmade = {target for _, target in step.copies}
        for sequence in list(self._running.values()):
            if any(block in unmade for table in sequence.tables for block in table.blocks):
                self._preempt(sequence)

    def fork(self, sequence: Sequence, sample: int) -> Sequence:
        """Another sample of a request whose prompt is held whole: it runs beside `sequence`, whose blocks it shares."""
        fork = sequence.fork(sample)
        fork.tables = self._cache.fork(sequence.tables)
        fork.move(State.RUNNING)
        self._queue.join(fork)
        self._running[fork.name] = fork
        return fork

    def remove(self, sequence: Sequence, to: State, *, last: bool = True) -> None:
        """It ends in the final state `to`; and if it is the last of its request's samples, the request."""
        if sequence.state is State.RUNNING:
            self._leave(sequence)
        self._queue.end(sequence, last=last)
        self._followers.forget(sequence)
        sequence.move(to)

    def learn(self, duration_ms: float) -> None:
        """How long an answer took, from its first step to its end: the base of retry delays."""
        self._usual_ms += _NEWEST_WEIGHT * (duration_ms - self._usual_ms)

    def _make_room(self) -> None:
        """For the next rows of all that run, oldest first."""
        for sequence in list(self._running.values()):
            while sequence.tables and not self._cache.reserve(sequence.tables, sequence.totals):
                self._preempt(self._next_to_give_way())

    def _next_to_give_way(self) -> Sequence:
        """Of the tenant that got most the request of lowest priority, of several the one that began last."""
        running = list(self._running.values())
        most = max(running, key=self._queue.level).request.tenant
        return min((each for each in reversed(running) if each.request.tenant == most), key=lambda each: each.request.priority)

    def _preempt(self, sequence: Sequence) -> None:
        """It gives its pages back and waits; what it generated and what its prompt kept stay known."""
        self._leave(sequence)
        sequence.move(State.WAITING)
        self._queue.put_back(sequence)
        self.preemptions += 1

    def _begin_next(self) -> bool:
        """The next one that waits starts to run, unless there is no place or no room; nobody passes it, unless it follows."""
        if self._places >= self.max_running or not self._queue:
            return False
        makers = self._followers.makers(self._running.values())
        sequence = self._queue.first(lambda each: self._is_passed(each, makers))
        if sequence is None or self._places + sequence.samples > self.max_running or self._still_stuck(sequence):
            return False
        tables = self._open(sequence)
        if tables is None and not self._running:
            # What it finds may lie in more pages of hidden states than it needs; with nothing found it fits.
            self._cache.drop_idle()
            tables = self._open(sequence)
        if tables is None:
            self._stuck = sequence, self._room
            return False
        self._enter(sequence, tables)
        return True

    def _open(self, sequence: Sequence) -> Tables | None:
        return self._cache.open(
            sequence.rows,
            sequence.totals,
            tenant=sequence.request.tenant,
            pruned_from=sequence.pruned_from,
            room_rows=sequence.request.sampling.max_new_tokens - sequence.generated,
            spare_pages=self._spare_pages(sequence),
            own_rows=sequence.reached[0],
        )

    @property
    def _places(self) -> int:
        """Taken in the batch; a prompt takes one for each sample that will come of it."""
        return sum(sequence.samples for sequence in self._running.values())

    def _is_passed(self, sequence: Sequence, makers: Makers) -> bool:
        return not self._still_stuck(sequence) and self._followers.should_wait(sequence, makers)

    def _still_stuck(self, sequence: Sequence) -> bool:
        """Whether looking for room again is of no use: no page came back, no block was made that it might find, and nobody left
        whose answer needed room to grow.
        """
        if not self._running or self._stuck is None:
            return False
        who, then = self._stuck
        now = self._room
        return sequence is who and now.available <= then.available and (now.made, now.left) == (then.made, then.left)

    @property
    def _room(self) -> _Room:
        return _Room(self._cache.available, self._cache.made, self._left)

    def _spare_pages(self, beginner: Sequence) -> int:
        """What the answers under way, and further samples of the beginner, will soon need: else one of them, most likely the
        newcomer, would give way at once. Nothing where nothing runs: what fits alone must begin then.
        """
        if not self._running:
            return 0
        blocks = self._spare_blocks * (_AGAIN if beginner.begun else 1)
        under_way = sum(sequence.samples * self._growth_pages(sequence, blocks) for sequence in self._running.values())
        return under_way + (beginner.samples - 1) * self._growth_pages(beginner, 1)

    def _growth_pages(self, sequence: Sequence, blocks: int) -> int:
        """Pages that it will take for so many more blocks in each segment, or for its longest answer if that is less."""
        layout, totals = self._cache.layout, sequence.totals
        pairs = zip(totals, sequence.most_rows(), strict=True)
        later = [min(total + blocks * layout.block_rows, most) for total, most in pairs]
        return layout.pages(later) - layout.pages(totals)

    def _enter(self, sequence: Sequence, tables: Tables) -> None:
        self._followers.forget(sequence)
        sequence.begin(tables)
        sequence.move(State.RUNNING)
        self._queue.begin(sequence)
        self._running[sequence.name] = sequence

    def _leave(self, sequence: Sequence) -> None:
        self._left += 1
        del self._running[sequence.name]
        self._cache.close(sequence.tables)
        sequence.tables = []
