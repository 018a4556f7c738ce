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
from decoder_service.runner.sampler import Sampler
from decoder_service.runner.sequence import DeviceSequence
from decoder_service.sequence import Piece
from vscan.errors import ResourceExhausted

_MEMORY_RETRY_MS = 1000


class DeviceLost(Exception):
    """The accelerator does not come back within this process."""


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
    """

    request_id: str
    tokens: tuple[SampledToken, ...]
    pruned: tuple[PruneReport, ...] = ()


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

    def close(self, request_id: str) -> None:
        """Forgets a request that has ended."""
        self._sequences.pop(request_id, None)

    def run(self, pieces: Sequence[Piece], copies: Sequence[Copy] = ()) -> list[SequenceOutput]:
        """One packed step, after `copies`.

        After an exception the rows of the pieces are not held.

        Raises:
            ResourceExhausted: the device is out of memory.
            DeviceLost: the device is gone for good.
        """
        try:
            return self._run([Part(piece, self._device(piece.sequence.request)) for piece in pieces], copies)
        except torch.OutOfMemoryError as error:
            raise ResourceExhausted("the device is out of memory", retry_delay_ms=_MEMORY_RETRY_MS) from error
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error

    @torch.inference_mode()
    def _run(self, parts: Sequence[Part], copies: Sequence[Copy]) -> list[SequenceOutput]:
        started, ranked = self._clock.mark(), []
        self._storage.copy(copies)
        if self._graphs.serve(parts):
            logits: torch.Tensor | None = self._graphs.logits(parts)
        else:
            for segment in self.layout.segments:
                ranked += self._rank(parts, segment)
                hidden = self._walk(parts, segment)
            logits = None if hidden is None else self.model.logits(hidden)
        tokens = self._sample(logits, parts)
        pruned: dict[str, list[PruneReport]] = {}
        for name, pruning, low, high in ranked:  # read only now: sampling has waited for the device
            report = PruneReport(pruning, self._clock.ms_between(started, low), self._clock.ms_between(low, high))
            pruned.setdefault(name, []).append(report)
        return [
            SequenceOutput(part.device.request.request_id, own, tuple(pruned.get(part.device.request.request_id, ())))
            for part, own in zip(parts, tokens, strict=True)
        ]

    def _rank(self, parts: Sequence[Part], segment: Segment) -> list[tuple[str, LayerPruning, Any, Any]]:
        """Whose prompt was ranked before `segment`, what it kept, and the moments around that."""
        ranked = []
        for part in parts if segment.index else ():
            before = self._clock.mark()
            pruning = rank_prompt(part, segment, self.model, self._storage)
            if pruning is not None:
                ranked.append((part.device.request.request_id, pruning, before, self._clock.mark()))
        return ranked

    def _walk(self, parts: Sequence[Part], segment: Segment) -> torch.Tensor | None:
        """Runs the parts' rows of a segment, which wait at the boundary before it, and leaves them at the one behind it.

        Returns of the last segment the rows that are sampled, [rows, hidden], if there are any.
        """
        batch = Batch(parts, segment, self.model, self._storage)
        if batch.empty:
            return None
        last = segment is self.layout.segments[-1]
        hidden = batch.walk(batch.gathered() if segment.index else batch.embedded(), last=last)
        if not last:
            self._storage.write_boundary(batch.plan.written_rows(), hidden)
        return hidden

    def _sample(self, logits: torch.Tensor | None, parts: Sequence[Part]) -> list[tuple[SampledToken, ...]]:
        """The tokens of each part. Samples of one request draw their first ones from the same row of `logits`."""
        states = [part.samplings if part.piece.samples else [] for part in parts]
        drawing = [own for own in states if own]
        if logits is None or not drawing:
            return [()] * len(parts)
        rows = [row for row, own in enumerate(drawing) for _ in own]
        if len(rows) > len(drawing):
            logits = logits[rows]
        tokens = iter(self._sampler.sample(logits, [state for own in drawing for state in own]))
        return [tuple(islice(tokens, len(own))) for own in states]

    def _device(self, request: EngineRequest) -> DeviceSequence:
        if request.request_id not in self._sequences:
            self._sequences[request.request_id] = DeviceSequence(request, self.layout.segments, self.model)
        return self._sequences[request.request_id]
