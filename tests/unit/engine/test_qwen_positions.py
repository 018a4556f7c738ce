"""Places on three axes, against transformers' `get_rope_index` for the prompt without any reduction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.request import Prompt
from tests.support.language_models import lay_out
from tests.support.qwen import IMAGE_PAD, VIDEO_PAD, kinds_of, shared_qwen
from vscan.checkpoint import Checkpoint
from vscan.errors import InvalidArgument
from vscan.visual_tokens import SampledFrames, Tile, VisualTokens


@dataclass(frozen=True)
class Picture:
    """An image, or a video: `pairs` of frames, each pair so many seconds after the one before."""

    rows: int
    columns: int
    kept: list[int]
    pairs: int = 1
    pair_seconds: float | None = None

    @property
    def count(self) -> int:
        return self.pairs * self.rows * self.columns

    @property
    def pad(self) -> int:
        return IMAGE_PAD if self.pair_seconds is None else VIDEO_PAD

    @property
    def value(self) -> VisualTokens:
        count = len(self.kept)
        return VisualTokens(
            tokens=torch.zeros(count, 32),
            kept_indices=torch.tensor(self.kept),
            picked_by=torch.zeros(count, dtype=torch.uint8),
            merged_into=None,
            tiles=tuple(Tile(self.rows, self.columns, self._kept_of(pair)) for pair in range(self.pairs)),
            unreduced_count=self.count,
            frames=self._frames(),
        )

    def _kept_of(self, pair: int) -> int:
        return sum(token // (self.rows * self.columns) == pair for token in self.kept)

    def _frames(self) -> SampledFrames | None:
        if self.pair_seconds is None:
            return None
        return SampledFrames((0.0,) * (2 * self.pairs), self.pairs * self.pair_seconds)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    pairs, seconds = draw(st.one_of(st.just((1, None)), st.tuples(st.integers(1, 6), st.floats(0.01, 20))))
    kept = draw(st.sets(st.integers(0, pairs * rows * columns - 1), min_size=1))
    return Picture(rows, columns, sorted(kept), pairs, seconds)


@cache
def language() -> LanguageModel:
    return load_language(Checkpoint.open(shared_qwen()[0]), dtype=torch.float32, device="cpu")


# Between images there is always text: the tokens that mark an image's start and end.
@given(first=st.integers(0, 5), following=st.lists(st.tuples(pictures(), st.integers(1, 5)), max_size=4))
@settings(max_examples=150, deadline=None)
def test_kept_columns_of_the_unreduced_prompt(first: int, following: list[tuple[Picture, int]]) -> None:
    text = [7] * (first + (not following))
    ours = [text, *[piece for picture, count in following for piece in (picture.value, [7] * count)]]
    ids, kept = list(text), list(range(len(text)))
    for picture, count in following:
        kept += [len(ids) + token for token in picture.kept]
        ids += [picture.pad] * picture.count
        kept += range(len(ids), len(ids) + count)
        ids += [7] * count

    expected, delta = rope_index(ids, [picture for picture, _ in following])
    prompt = lay_out(ours, placeholder=IMAGE_PAD)
    positions = language().prompt_positions(prompt)
    assert torch.equal(positions.places, expected[:, kept])
    assert positions.next == int(expected[0, -1]) + 1  # where its `generate` goes on, and `delta` does not
    assert language().positions_taken(prompt) == len(ids) + delta


def rope_index(ids: list[int], images: list[Picture]) -> tuple[torch.Tensor, int]:
    """transformers' positions [3, rows], and what it adds to the row count for one more than the last on any axis."""
    model: Any = shared_qwen()[1].model
    prompt = torch.tensor([ids])

    def grids(pad: int) -> torch.Tensor | None:
        of_a_kind = [[image.pairs, 2 * image.rows, 2 * image.columns] for image in images if image.pad == pad]
        return torch.tensor(of_a_kind) if of_a_kind else None

    positions, delta = model.get_rope_index(
        prompt,
        mm_token_type_ids=kinds_of(prompt),
        image_grid_thw=grids(IMAGE_PAD),
        video_grid_thw=grids(VIDEO_PAD),
        second_per_grid_ts=[image.pair_seconds for image in images if image.pad == VIDEO_PAD],
    )
    return positions[:, 0], int(delta)


def moments_over(seconds: float) -> Prompt:
    """Three moments of a video that is so long."""
    video = Picture(1, 1, [0, 1, 2], pairs=3, pair_seconds=seconds / 3)
    return lay_out([[7], video.value, [7]], placeholder=IMAGE_PAD)


def test_a_place_far_away_is_counted() -> None:
    prompt = moments_over(1e6)
    assert language().positions_taken(prompt) == int(language().prompt_positions(prompt).places.max()) + 1 > 10**6


@pytest.mark.parametrize("seconds", [1e8, 1e17, 1e300, 1.5e308])
def test_times_that_no_place_stands_for_are_refused(seconds: float) -> None:
    for lay in (language().positions_taken, language().prompt_positions):
        with pytest.raises(InvalidArgument, match=r"^images\[0\]: 3 moments .* places apart, limit 16777216 places$"):
            lay(moments_over(seconds))
