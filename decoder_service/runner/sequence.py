"""What the device holds of one request."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from decoder_service.kv_cache.segments import Segment
from decoder_service.kv_cache.storage import SegmentKv
from decoder_service.language.base import LanguageModel
from decoder_service.request import EngineRequest, LayerPruning
from decoder_service.runner.sampling_state import SamplingState


class DeviceSequence:
    """Owned by the engine's thread.

    `kv[s].length` rows are held in segment s; the next row goes there at `next_positions[s]`.
    """

    def __init__(self, request: EngineRequest, segments: Sequence[Segment], model: LanguageModel) -> None:
        self.request = request
        self.sampling = SamplingState(request)
        self.kv = [
            SegmentKv(
                segment,
                kv_heads=model.shape.kv_heads,
                head_dim=model.shape.head_dim,
                dtype=model.dtype,
                device=model.device,
            )
            for segment in segments
        ]
        self.next_positions = [0] * len(segments)
        self.last_token: int | None = None  # None until the prompt has run
        self.pruning: list[LayerPruning] = []  # fixed once ranked: never ranked again, never from a generated row

    @property
    def prefilled(self) -> bool:
        """Whether the prompt has run."""
        return self.last_token is not None

    @property
    def segment_rows(self) -> tuple[int, ...]:
        """Rows held in each segment."""
        return tuple(kv.length for kv in self.kv)


class PromptRows:
    """Which rows of a prompt are still there, as it passes through the segments.

        prompt     s s v v v q        2 images: image 0 has tokens 0 1, image 1 has token 2
        alive      0 1 2 3 4 5        rows of the prompt
        token_of  -1 -1 0 1 2 -1      of each row of the prompt: its place among all visual tokens, -1 for text

    All on the CPU, int64.
    """

    def __init__(self, request: EngineRequest) -> None:
        prompt = request.prompt
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
