"""Qwen2.5-VL's answers about videos are those of transformers' own `generate`, token for token, where nothing is reduced."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from decoder_service.request import Pruning
from tests.support.both_halves import BothHalves, Clip, Picture, Turns, conversation, shown
from tests.support.qwen import END_OF_TEXT, IM_END, generate, image_processor, shared_qwen
from tests.support.video_chats import video_chats
from vscan.specs import KeepTokens, PositionPolicy, Rater

NEW_TOKENS = 10
PAIR = 2
PLACEHOLDER = "<|placeholder|>"
WORDS = ["what", "colour", "is", "the", "small", "circle", "above", "there,", "a", "star", "or", "three", "triangles?", "yes"]
CHATS = video_chats(lambda generator: " ".join(generator.choices(WORDS, k=generator.randint(1, 6))))


@cache
def halves() -> BothHalves:
    return BothHalves(shared_qwen()[0])


def of_pairs(frames: list[Image.Image]) -> tuple[torch.Tensor, list[int]]:
    """Patches of two frames each, the last frame repeated, from the image processor's of each frame; and their grid."""
    made: Any = [image_processor(shared_qwen()[0])([frame], return_tensors="pt") for frame in frames]
    of_frames = [one.pixel_values.view(-1, 3, PAIR, 14 * 14)[:, :, 0] for one in made]
    of_frames += of_frames[-1:] * (len(frames) % PAIR)
    pairs = [torch.stack(of_frames[first : first + PAIR], dim=2).flatten(1) for first in range(0, len(of_frames), PAIR)]
    return torch.cat(pairs), [len(pairs), *made[0].image_grid_thw[0, 1:].tolist()]


def expected(turns: Turns) -> list[int]:
    """transformers' answer: its chat template, its image processor, its model."""
    directory, model = shared_qwen()
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    text = tokenizer.apply_chat_template(conversation(turns), tokenize=False, add_generation_prompt=True)
    inputs: dict[str, Any] = {}
    if pictures := [one.image for one in shown(turns) if isinstance(one, Picture)]:
        inputs |= image_processor(directory)(pictures, return_tensors="pt")
    if clips := [one for one in shown(turns) if isinstance(one, Clip)]:
        pixels, grids = zip(*(of_pairs(list(clip.frames)) for clip in clips), strict=True)
        inputs |= {"pixel_values_videos": torch.cat(pixels), "video_grid_thw": torch.tensor(grids)}
        inputs["second_per_grid_ts"] = [PAIR / clip.per_second for clip in clips]
    for pad, name in (("<|image_pad|>", "image_grid_thw"), ("<|video_pad|>", "video_grid_thw")):
        for grid in inputs.get(name, ()):
            text = text.replace(pad, PLACEHOLDER * (int(grid.prod()) // 4), 1)
        text = text.replace(PLACEHOLDER, pad)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return generate(model, ids, inputs, new_tokens=NEW_TOKENS, end=[IM_END, END_OF_TEXT])


@pytest.mark.parametrize("turns", CHATS, ids=range(len(CHATS)))
def test_an_answer_is_that_of_transformers(turns: Turns) -> None:
    """Also where pruning takes nothing away: places are kept through both segments and while the answer grows."""
    keeping = Pruning(layers=(2,), budgets=(KeepTokens(10_000),), rater=Rater.LAST_TOKEN, positions=PositionPolicy.KEEP)
    wanted = expected(turns)
    assert halves().answers(turns, Pruning(), keeping, new_tokens=NEW_TOKENS) == [wanted, wanted]


def test_answers_depend_on_what_was_asked() -> None:
    generator = random.Random(1)
    asked = generator.sample(CHATS, 6)
    answers = {tuple(halves().answers(turns, Pruning(), new_tokens=NEW_TOKENS)[0]) for turns in asked}
    assert len(answers) == len(asked)
