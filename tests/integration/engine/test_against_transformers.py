"""With pruning off, greedy answers are those of transformers' own `generate`, token for token."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from tests.support.engines import ids_of, make_engine, run_all
from tests.support.language_models import (
    PARITY,
    PARITY_PATCHES,
    PLACEHOLDER,
    ask,
    lay_out,
    parity_language,
    visual_tokens,
)
from vscan.visual_tokens import VisualTokens

NEW_TOKENS = 16
IMAGE_COUNTS = [0] * 10 + [1] * 10 + [2] * 3


@cache
def reference() -> Any:
    model = LlavaForConditionalGeneration.from_pretrained(PARITY / "llava15", dtype=torch.float32)
    return model.eval().requires_grad_(False)


def pixels(count: int, seed: int) -> torch.Tensor:
    return torch.randn((count, 3, 336, 336), generator=torch.Generator().manual_seed(seed))


def encoded(images: torch.Tensor) -> list[VisualTokens]:
    """The visual tokens that transformers itself lays into the prompt."""
    features = reference().get_image_features(pixel_values=images)
    rows = getattr(features, "pooler_output", features)
    return [visual_tokens(tokens.reshape(PARITY_PATCHES, -1)) for tokens in rows]


def words(generator: random.Random) -> list[int]:
    return [generator.randrange(4, PLACEHOLDER) for _ in range(generator.randint(1, 9))]


@pytest.mark.parametrize("seed", range(len(IMAGE_COUNTS)))
@torch.inference_mode()
def test_greedy_answers_equal_generate(seed: int) -> None:
    generator = random.Random(seed)
    count = IMAGE_COUNTS[seed]
    images = pixels(count, seed)
    pieces: list[list[int] | VisualTokens] = [[1, *words(generator)]]
    for image in encoded(images) if count else []:
        pieces += [image, words(generator)]
    prompt = lay_out(pieces, placeholder=PLACEHOLDER)
    ids = torch.tensor([prompt.token_ids])
    given = {"pixel_values": images} if count else {}

    theirs = reference().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        eos_token_id=2,
        pad_token_id=0,
        **given,
    )

    request = ask(prompt, max_new_tokens=NEW_TOKENS, ignore_eos=False)
    engine = make_engine(parity_language(), prune_layers=(3,))
    assert ids_of(run_all(engine, [request])[request.request_id]) == theirs[0, prompt.rows :].tolist()
