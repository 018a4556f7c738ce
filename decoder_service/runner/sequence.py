"""What is known of one request on the device's side: how its samples draw, what its prompt kept, where its rows stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.language.base import LanguageModel, Positions
from decoder_service.request import EngineRequest, LayerPruning, Prompt
from decoder_service.runner.sampling_state import SamplingState
from vscan.specs import PositionPolicy


@dataclass(frozen=True, slots=True)
class Decided:
    """What rankings have decided so far."""

    alive: torch.Tensor
    positions: Sequence[Positions]
    sources: Sequence[list[int] | None]
    to_rank: frozenset[int]


class DeviceSequence:
    """Owned by the engine's thread. It holds no keys or values: a preempted request keeps it, so nothing is ranked twice.
    All but `samplings` is the prompt's, and the same for all samples.

    A prompt of 6 rows that keeps 4 before segment 1, positions re-numbered:

        positions[0]  0 1 2 3 4 5   next 6        sources[0]  None (the prompt itself)
        positions[1]  0 1 2 3       next 4        sources[1]  0 2 4 5: these rows of segment 0
    """

    def __init__(self, request: EngineRequest, segments: Sequence[Segment], model: LanguageModel) -> None:
        self.request = request
        self.samplings = [SamplingState(request, sample) for sample in range(request.sampling.n)]
        self.prompt = PromptRows(request.prompt)
        self.positions = [model.prompt_positions(request.prompt)] * len(segments)
        self.sources: list[list[int] | None] = [None] * len(segments)
        self._to_rank = {segment.index for segment in segments if segment.first_layer in request.pruning.layers}

    def must_rank(self, segment: int) -> bool:
        """Whether the prompt loses rows before this segment, and which is not known yet."""
        return segment in self._to_rank

    def rank(self, segment: int, layer: int, survivors: torch.Tensor, model: LanguageModel) -> LayerPruning:
        """Of the visual tokens still there those at `survivors` (ascending) go on to `segment` and beyond."""
        before = self.prompt.tokens.shape[0]
        rows = self.prompt.drop_visual_but(survivors)
        if self.request.pruning.positions is PositionPolicy.RENUMBER:
            positions = model.text_positions(0, rows.shape[0])
        else:
            positions = self.positions[segment].only(rows)
        self.positions[segment:] = [positions] * (len(self.positions) - segment)
        self.sources[segment] = rows.tolist()
        self._to_rank.remove(segment)
        return LayerPruning(layer, before, self.prompt.survivors())

    def decided(self) -> Decided | None:
        """For `take_back`, before a step that may fail; None if nothing is left to decide."""
        if not self._to_rank:
            return None
        return Decided(self.prompt.alive, tuple(self.positions), tuple(self.sources), frozenset(self._to_rank))

    def take_back(self, before: Decided | None) -> None:
        """Undoes what was decided since then: a step that failed is run again, its rankings too."""
        if before is None:
            return
        self.prompt.alive = before.alive
        self.positions, self.sources = list(before.positions), list(before.sources)
        self._to_rank = set(before.to_rank)

    def places(self, segment: int, start: int, end: int, model: LanguageModel) -> torch.Tensor:
        """Positions of rows `start` to `end` of a segment, those after the prompt being generated."""
        positions = self.positions[segment]
        prompt = positions.places.shape[-1]
        if start >= prompt:
            return model.text_positions(positions.next + start - prompt, end - start).places
        own = positions.places[..., start : min(end, prompt)]
        if end <= prompt:
            return own
        return torch.cat((own, model.text_positions(positions.next, end - prompt).places), dim=-1)

    def generated_place(self, segment: int, row: int) -> int:
        """Where a generated row of a segment stands, on every axis."""
        positions = self.positions[segment]
        return positions.next + row - positions.places.shape[-1]

    def sources_of(self, segment: int, start: int, end: int) -> list[int] | None:
        """Which rows of the segment before are rows `start` to `end` of this one; None if the very same."""
        kept = self.sources[segment]
        if kept is None:
            return None
        generated = range(max(start, len(kept)), end)
        before = self.positions[segment - 1].places.shape[-1]
        return kept[start:end] + [row - len(kept) + before for row in generated]


class PromptRows:
    """Which rows of a prompt are still there, as it passes through the segments.

        prompt     s s v v v q        2 images: image 0 has tokens 0 1, image 1 has token 2
        alive      0 1 2 3 4 5        rows of the prompt
        token_of  -1 -1 0 1 2 -1      of each row of the prompt: its place among all visual tokens, -1 for text

    All on the CPU, int64.
    """

    def __init__(self, prompt: Prompt) -> None:
        counts = [image.kept_count for image in prompt.images]
        first_token = [sum(counts[:image]) for image in range(len(counts))]
        self.alive = torch.arange(prompt.rows)
        self.image_of = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
        self._first_token = first_token
        self._token_of = torch.full((prompt.rows,), -1)
        for span in prompt.spans:
            tokens = torch.arange(first_token[span.image], first_token[span.image] + span.count)
            self._token_of[span.start : span.start + span.count] = tokens

    @property
    def tokens(self) -> torch.Tensor:
        """The visual tokens still there, ascending by row, [v]."""
        own = self._token_of[self.alive]
        return own[own >= 0]

    @property
    def visual_rows(self) -> torch.Tensor:
        """Where they are among the rows still there, [v]."""
        return (self._token_of[self.alive] >= 0).nonzero()[:, 0]

    @property
    def asking_rows(self) -> torch.Tensor:
        """Text rows after the first visual one, among the rows still there."""
        text = self._token_of[self.alive] < 0
        return (text & (~text).cumsum(dim=0).bool()).nonzero()[:, 0]

    def drop_visual_but(self, survivors: torch.Tensor) -> torch.Tensor:
        """Keeps all text and, of `tokens`, those at `survivors` (ascending). Returns the rows that stay."""
        visual = self.visual_rows
        keep = torch.ones(self.alive.shape[0], dtype=torch.bool)
        keep[visual] = False
        keep[visual[survivors]] = True
        rows = keep.nonzero()[:, 0]
        self.alive = self.alive[rows]
        return rows

    def survivors(self) -> tuple[tuple[int, ...], ...]:
        """For each image the rows of its `VisualTokens` that are still there, ascending."""
        kept: list[list[int]] = [[] for _ in self._first_token]
        for token, image in zip(self.tokens.tolist(), self.image_of[self.tokens].tolist(), strict=True):
            kept[image].append(token - self._first_token[image])
        return tuple(tuple(sorted(rows)) for rows in kept)
