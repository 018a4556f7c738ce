"""Places on three axes, against transformers' `get_rope_index` for the prompt without any reduction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from tests.support.language_models import lay_out
from tests.support.qwen import IMAGE_PAD, shared_qwen
from vscan.checkpoint import Checkpoint
from vscan.visual_tokens import Tile, VisualTokens


@dataclass(frozen=True)
class Picture:
    rows: int
    columns: int
    kept: list[int]

    @property
    def value(self) -> VisualTokens:
        count = len(self.kept)
        return VisualTokens(
            tokens=torch.zeros(count, 32),
            kept_indices=torch.tensor(self.kept),
            picked_by=torch.zeros(count, dtype=torch.uint8),
            merged_into=None,
            tiles=(Tile(self.rows, self.columns, count),),
            unreduced_count=self.rows * self.columns,
        )


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    kept = draw(st.sets(st.integers(0, rows * columns - 1), min_size=1))
    return Picture(rows, columns, sorted(kept))


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
        ids += [IMAGE_PAD] * (picture.rows * picture.columns)
        kept += range(len(ids), len(ids) + count)
        ids += [7] * count

    expected, delta = rope_index(ids, [picture for picture, _ in following])
    positions = language().prompt_positions(lay_out(ours, placeholder=IMAGE_PAD))
    assert torch.equal(positions.places, expected[:, kept])
    assert positions.next == len(ids) + delta


def rope_index(ids: list[int], images: list[Picture]) -> tuple[torch.Tensor, int]:
    """transformers' positions [3, rows], and what it adds to the row count for the next one."""
    model: Any = shared_qwen()[1].model
    prompt = torch.tensor([ids])
    grids = torch.tensor([[1, 2 * image.rows, 2 * image.columns] for image in images]) if images else None
    positions, delta = model.get_rope_index(prompt, mm_token_type_ids=(prompt == IMAGE_PAD).int(), image_grid_thw=grids)
    return positions[:, 0], int(delta)
