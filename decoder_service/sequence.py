"""An accepted request on its way, or one of its samples: its state, its rows, and how far each segment has come. No torch.

    prompt of 10 rows, 7 of them behind the pruning, 2 generated; the last generated row has not run yet

    segment 0   total 12   held 11        a step of one row: ranges ((11, 12), (8, 9))
    segment 1   total  9   held  8

Work is counted in rows x layers, and each row once: `reached` says how far each segment has ever come, so that what a preempted
request runs again is not work that anyone asked for.

A prompt runs in pieces: in every segment at most as many rows as the step allows. Behind a pruning rows wait until the segment
before has the whole prompt, since all of it is ranked together; elsewhere each piece goes straight on.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from copy import copy
from dataclasses import dataclass, field

from decoder_service.budgets import first_pruned_segment, segment_rows
from decoder_service.kv_cache.cache import Tables
from decoder_service.kv_cache.prefix import RowIdentity
from decoder_service.kv_cache.segments import Segment
from decoder_service.request import MOVES, EngineRequest, State

# Rows from, up to, of one segment.
Range = tuple[int, int]


class Sequence:
    """Owned by the engine's thread. `tables` is empty unless it is running.

    Until the prompt is held whole there is one for all samples of the request; then it becomes sample 0's, and `fork` makes
    the others.
    """

    def __init__(self, request: EngineRequest, segments: Items[Segment]) -> None:
        self.request = request
        self.name = request.request_id  # of this sample alone
        self.sample = 0
        self.samples = request.sampling.n  # that it stands for
        self.state = State.WAITING
        self.prompt_rows = segment_rows(request, segments)
        self.pruned_from = first_pruned_segment(request, segments)
        self.rows = RowIdentity(request.prompt)
        self.totals = self.prompt_rows  # rows in each segment, those still to run included
        self.tables: Tables = []
        self.begun = False  # it ran at some time, and may have been preempted since
        self.reached = [0] * len(segments)
        self._layers = [segment.layers for segment in segments]
        self._waits_at = [segment.first_layer in request.pruning.layers for segment in segments]

    @property
    def request_id(self) -> str:
        """The request's name."""
        return self.request.request_id

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.rows.ids) - self.request.prompt.rows

    @property
    def missing(self) -> int:
        """Rows still to run, in the segment where they are most."""
        return max(total - table.rows for total, table in zip(self.totals, self.tables, strict=True))

    def most_rows(self) -> tuple[int, ...]:
        """Rows in each segment once the longest answer is written; its last token never runs."""
        return tuple(rows + self.request.sampling.max_new_tokens - 1 for rows in self.prompt_rows)

    def ranges(self, allowed: int) -> tuple[Range, ...]:
        """What runs in a step that lets it run `allowed` rows in each segment."""
        ranges: list[Range] = []
        for segment, (table, total) in enumerate(zip(self.tables, self.totals, strict=True)):
            ready = total if not segment else self._ready(segment, ranges[-1][1])
            ranges.append((table.rows, max(table.rows, min(table.rows + allowed, ready))))
        return tuple(ranges)

    @property
    def owed(self) -> int:
        """Work of the known rows that never ran."""
        return self._work(self.totals)

    def begin(self, tables: Tables) -> None:
        """It has room, and what `tables` say that it found."""
        self.begun = True
        self.tables = tables
        self.reach([table.rows for table in tables])

    def reach(self, ends: Items[int]) -> int:
        """Each segment has come to `ends[s]`. Returns the work of rows that it never came to before."""
        work = self._work(ends)
        if work:
            self.reached = [max(pair) for pair in zip(self.reached, ends, strict=True)]
        return work

    def average(self, rows: Items[int]) -> float:
        """Of rows in each segment: how many on average over the layers."""
        return sum(layers * each for layers, each in zip(self._layers, rows, strict=True)) / sum(self._layers)

    def append(self, token_id: int) -> None:
        """A token was chosen."""
        self.rows.ids.append(token_id)
        self.totals = tuple(total + 1 for total in self.totals)

    def fork(self, sample: int) -> Sequence:
        """Another sample of the request, of the same rows so far; it waits, and stands for itself alone."""
        fork = copy(self)
        fork.name = f"{self.request_id}#{sample}"
        fork.sample, fork.samples = sample, 1
        fork.state, fork.tables = State.WAITING, []
        fork.reached = list(self.reached)
        fork.rows = RowIdentity(self.request.prompt)
        fork.rows.ids = list(self.rows.ids)
        return fork

    def move(self, to: State) -> None:
        """Goes on to `to`. A move that the drawing in `request.py` lacks is a fault of the engine: it raises RuntimeError."""
        if to not in MOVES.get(self.state, ()):
            raise RuntimeError(f"request {self.name}: {self.state.value} does not go to {to.value}")
        self.state = to

    def _work(self, ends: Items[int]) -> int:
        steps = zip(self._layers, self.reached, ends, strict=True)
        return sum(layers * max(0, end - reached) for layers, reached, end in steps)

    def _ready(self, segment: int, before: int) -> int:
        """Rows that may run in this segment when the one before holds `before`."""
        beyond_prompt = before - self.prompt_rows[segment - 1]
        if beyond_prompt < 0 and self._waits_at[segment]:
            return 0
        return self.prompt_rows[segment] + beyond_prompt


@dataclass(slots=True, eq=False)
class Piece:
    """One sequence's part of a step: rows `ranges[s]` of segment s. As it is when the step is scheduled."""

    sequence: Sequence
    ranges: tuple[Range, ...]
    ends: tuple[int, ...] = field(init=False)  # rows that each segment holds after the step
    samples: bool = field(init=False)  # its last row comes out at the end, so that the next token can be chosen
    decodes: bool = field(init=False)  # it is that last row, a generated one, in every segment, and no other

    def __post_init__(self) -> None:
        self.ends = tuple(end for _, end in self.ranges)
        self.samples = self.ends[-1] == self.sequence.totals[-1]
        rows = zip(self.ranges, self.sequence.prompt_rows, strict=True)
        # One row of each segment is not enough: what runs again may be at another row in each.
        self.decodes = self.samples and all(end - start == 1 and start >= prompt for (start, end), prompt in rows)

    def rows(self, segment: int) -> int:
        """How many of a segment."""
        start, end = self.ranges[segment]
        return end - start
