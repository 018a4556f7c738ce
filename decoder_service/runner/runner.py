"""All device work: opens sequences, runs packed steps over the model's layers, frees what a sequence held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from decoder_service.kv_cache.segments import Segment, SegmentUsage, split_layers
from decoder_service.language.base import LanguageModel
from decoder_service.request import EngineRequest, LayerPruning, SampledToken
from decoder_service.runner.batch import Batch
from decoder_service.runner.boundary import cross_boundary
from decoder_service.runner.clock import DeviceClock
from decoder_service.runner.sampler import Sampler
from decoder_service.runner.sequence import DeviceSequence
from vscan.errors import ResourceExhausted

_MEMORY_RETRY_MS = 1000


class DeviceLost(Exception):
    """The accelerator does not come back within this process."""


@dataclass(frozen=True, slots=True)
class PruneTime:
    """When a step ranked and gathered before `layer`: milliseconds from the step's start, and how long it took."""

    layer: int
    start_ms: float
    duration_ms: float


@dataclass(frozen=True, slots=True)
class PromptReport:
    """What running a prompt came to."""

    segment_rows: tuple[int, ...]
    pruning: tuple[LayerPruning, ...]
    prune_times: tuple[PruneTime, ...]


@dataclass(frozen=True, slots=True)
class SequenceOutput:
    """One sequence's part of a step's outcome. `prompt`: in the step that ran the prompt."""

    request_id: str
    token: SampledToken
    prompt: PromptReport | None


class Runner:
    """Owned by the engine's thread.

    Args:
        model: the language half.
        prune_layers: fixed for the deployment; they split the layers into segments.

    Raises:
        ValueError: pruning layers that do not ascend within the model.
    """

    def __init__(self, model: LanguageModel, *, prune_layers: Sequence[int]) -> None:
        self.model = model
        self.segments = split_layers(model.shape.layers, prune_layers)
        self._sequences: dict[str, DeviceSequence] = {}
        self._clock = DeviceClock(model.device)
        self._sampler = Sampler()

    def open(self, request: EngineRequest) -> None:
        """Makes a sequence known; takes no memory on the device yet."""
        self._sequences[request.request_id] = DeviceSequence(request, self.segments, self.model)

    def close(self, request_id: str) -> None:
        """Frees what a sequence held; nothing if it is not open."""
        self._sequences.pop(request_id, None)

    def run(self, request_ids: Sequence[str]) -> list[SequenceOutput]:
        """One packed step: prompts that have not run yet run whole, every other sequence goes on by one row.

        After an exception the sequences of the step are unusable and must be closed.

        Raises:
            ResourceExhausted: the device is out of memory.
            DeviceLost: the device is gone for good.
        """
        try:
            return self._run([self._sequences[request_id] for request_id in request_ids])
        except torch.OutOfMemoryError as error:
            raise ResourceExhausted("the device is out of memory", retry_delay_ms=_MEMORY_RETRY_MS) from error
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error

    def kv_usage(self) -> tuple[SegmentUsage, ...]:
        """Rows and bytes that the open sequences hold, by segment."""
        return tuple(self._usage(segment) for segment in self.segments)

    def _usage(self, segment: Segment) -> SegmentUsage:
        held = [sequence.kv[segment.index] for sequence in self._sequences.values()]
        return SegmentUsage(segment, sum(kv.length for kv in held), sum(kv.reserved_bytes for kv in held))

    @torch.inference_mode()
    def _run(self, sequences: Sequence[DeviceSequence]) -> list[SequenceOutput]:
        started = self._clock.mark()
        beginners = [not sequence.prefilled for sequence in sequences]
        batch = Batch(sequences, self.model)
        crossings = []
        for segment in self.segments:
            if segment.index:
                before = self._clock.mark()
                if cross_boundary(batch, segment, self.model):
                    crossings.append((segment.first_layer, before, self._clock.mark()))
            batch.walk(segment)
        tokens = self._sampler.sample(self.model.logits(batch.last_rows()), [sequence.sampling for sequence in sequences])
        for sequence, token in zip(sequences, tokens, strict=True):
            sequence.last_token = token.token_id
        times = [
            PruneTime(layer, self._clock.ms_between(started, low), self._clock.ms_between(low, high))
            for layer, low, high in crossings
        ]
        return [
            SequenceOutput(sequence.request.request_id, token, _report(sequence, times) if begins else None)
            for sequence, token, begins in zip(sequences, tokens, beginners, strict=True)
        ]


def _report(sequence: DeviceSequence, times: Sequence[PruneTime]) -> PromptReport:
    layers = {done.layer for done in sequence.pruning}
    own = tuple(time for time in times if time.layer in layers)
    return PromptReport(sequence.segment_rows, tuple(sequence.pruning), own)
