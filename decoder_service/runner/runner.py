"""All device work: runs packed steps over the model's layers, ranks between segments, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from decoder_service.kv_cache.cache import Copy
from decoder_service.kv_cache.segments import PageLayout, Segment
from decoder_service.kv_cache.storage import KvStorage
from decoder_service.language.base import LanguageModel
from decoder_service.request import EngineRequest, LayerPruning, SampledToken
from decoder_service.runner.batch import Batch, Part
from decoder_service.runner.boundary import rank_prompt
from decoder_service.runner.clock import DeviceClock
from decoder_service.runner.decode_graph import DecodeGraphs
from decoder_service.runner.faults import fault_of, run_apart
from decoder_service.runner.sampler import Sampler
from decoder_service.runner.sequence import DeviceSequence
from decoder_service.sequence import Piece

# Who was ranked in a step, what it kept, and the moments around that.
_Ranking = tuple[str, LayerPruning, Any, Any]
# What came of a sequence in a step: its tokens, or what failed.
_Outcome = tuple[SampledToken, ...] | Exception


@dataclass(frozen=True, slots=True)
class PruneReport:
    """A prompt was ranked: what it kept, when (milliseconds from the step's start), and how long that took."""

    pruning: LayerPruning
    start_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """One sequence's part of a step's outcome.

    `tokens` is empty while its prompt has not run whole; then there is one for each sample that it stands for, later one.
    `fault`: what failed for this sequence alone; then its rows are not held.
    """

    request_id: str
    tokens: tuple[SampledToken, ...]
    pruned: tuple[PruneReport, ...] = ()
    fault: Exception | None = None


class Runner:
    """Owned by the engine's thread.

    Args:
        model: the language half.
        layout: of the cache; its segments are those of the model.
        pages: of the cache; their memory is taken at once.
    """

    def __init__(self, model: LanguageModel, layout: PageLayout, *, pages: int) -> None:
        self.model = model
        self.layout = layout
        self.pages = pages
        self._storage = KvStorage(layout, pages=pages, dtype=model.dtype, device=model.device)
        self._graphs = DecodeGraphs(model, self._storage)
        self._sequences: dict[str, DeviceSequence] = {}
        self._clock = DeviceClock(model.device)
        self._sampler = Sampler()

    @torch.inference_mode()
    def prepare(self, *, most_sequences: int, most_rows: int) -> None:
        """Records decode steps where that is of use, for steps of `most_sequences` sequences of at most `most_rows` rows each.

        On the thread that calls `run`, and before it does.
        """
        self._graphs.prepare(most_sequences=most_sequences, most_rows=most_rows)

    def close(self, request_id: str) -> None:
        """Forgets a request that has ended."""
        self._sequences.pop(request_id, None)

    @torch.inference_mode()
    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        """One packed step, after `copies`. What fails for a sequence is in its output, and changes nothing for the others.

        Raises:
            DeviceLost: the device is gone for good.
            Exception: the copies failed; the rows of the pieces are not held.
        """
        started = self._clock.mark()
        self._storage.copy(copies)
        parts, outcomes = self._parts(pieces)
        ranked: list[_Ranking] = []
        for some, done in run_apart(self._attempt, parts):
            if isinstance(done, Exception):
                outcomes |= {part.name: done for part in some}
            else:
                outcomes |= done.outcomes
                ranked += done.ranked
        reports = self._reports(ranked, started)  # durations are read only now: sampling has waited for the device
        return [_output(piece, outcomes, reports) for piece in pieces]

    def _parts(self, pieces: Sequence[Piece]) -> tuple[list[Part], dict[str, _Outcome]]:
        """What can run, and why others cannot."""
        parts: list[Part] = []
        failed: dict[str, _Outcome] = {}
        for piece in pieces:
            try:
                parts.append(Part(piece, self._device(piece.sequence.request)))
            except Exception as error:
                failed[piece.sequence.name] = fault_of(error)
        return parts, failed

    def _attempt(self, parts: Sequence[Part]) -> _Attempt:
        """The packed step of `parts`; after an exception it can be run again."""
        if self._graphs.serve(parts):
            return _Attempt(self._sample(self._graphs.logits(parts), parts), [])
        ranked: list[_Ranking] = []
        failed: dict[str, _Outcome] = {}
        hidden: torch.Tensor | None = None
        for segment in self.layout.segments:
            for part in parts if segment.index else ():
                self._rank(part, segment, ranked, failed)
            going = [part for part in parts if part.name not in failed]
            hidden = self._walk(going, segment, hidden if len(going) == len(parts) else None)
            parts = going
        return _Attempt(failed | self._sample(None if hidden is None else self.model.logits(hidden), parts), ranked)

    def _rank(self, part: Part, segment: Segment, ranked: list[_Ranking], failed: dict[str, _Outcome]) -> None:
        """Ranks the part's prompt before `segment`, if it is to be."""
        before = self._clock.mark()
        try:
            pruning = rank_prompt(part, segment, self.model, self._storage)
        except Exception as error:
            failed[part.name] = fault_of(error)
            return
        if pruning is not None:
            ranked.append((part.name, pruning, before, self._clock.mark()))

    def _walk(self, parts: Sequence[Part], segment: Segment, left: torch.Tensor | None) -> torch.Tensor | None:
        """Runs the parts' rows of a segment, which wait at the boundary before it, and leaves them at the one behind it.

        Args:
            left: what this returned for the segment before; None if some of its rows do not go on.

        Returns:
            The rows, [rows, hidden], if there are any; of the last segment those that are sampled.
        """
        batch = Batch(parts, segment, self.model, self._storage)
        if batch.empty:
            return None
        last = segment is self.layout.segments[-1]
        hidden = batch.walk(batch.entering(left), last=last)
        if not last:
            batch.leave(hidden)
        return hidden

    def _sample(self, logits: torch.Tensor | None, parts: Sequence[Part]) -> dict[str, _Outcome]:
        """Samples of one request draw their first tokens from the same row of `logits`."""
        drawing = [part for part in parts if part.piece.samples]
        if logits is None or not drawing:
            return {}
        rows = [row for row, part in enumerate(drawing) for _ in part.samplings]
        if len(rows) > len(drawing):
            logits = logits[self._storage.index(rows)]
        drawn = iter(self._sampler.sample(logits, [state for part in drawing for state in part.samplings]))
        return {part.name: _all_or_fault(list(islice(drawn, len(part.samplings)))) for part in drawing}

    def _reports(self, ranked: Sequence[_Ranking], started: Any) -> dict[str, list[PruneReport]]:
        reports: dict[str, list[PruneReport]] = {}
        for name, pruning, low, high in ranked:
            report = PruneReport(pruning, self._clock.ms_between(started, low), self._clock.ms_between(low, high))
            reports.setdefault(name, []).append(report)
        return reports

    def _device(self, request: EngineRequest) -> DeviceSequence:
        if request.request_id not in self._sequences:
            self._sequences[request.request_id] = DeviceSequence(request, self.layout.segments, self.model)
        return self._sequences[request.request_id]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of those that ran together, by name; who is missing runs on."""

    outcomes: dict[str, _Outcome]
    ranked: list[_Ranking]


def _all_or_fault(drawn: Sequence[SampledToken | Exception]) -> _Outcome:
    """What fails for one sample fails for all that stand for the sequence."""
    tokens = tuple(each for each in drawn if not isinstance(each, Exception))
    faults = [each for each in drawn if isinstance(each, Exception)]
    return faults[0] if faults else tokens


def _output(piece: Piece, outcomes: dict[str, _Outcome], reports: dict[str, list[PruneReport]]) -> SequenceOutput:
    sequence = piece.sequence
    outcome = outcomes.get(sequence.name, ())
    if isinstance(outcome, Exception):
        return SequenceOutput(sequence.request_id, (), fault=outcome)
    return SequenceOutput(sequence.request_id, outcome, tuple(reports.get(sequence.name, ())))
