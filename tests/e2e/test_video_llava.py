"""Video-LLaVA's answers are those of transformers' own `generate`, token for token, where nothing is reduced."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from transformers import AutoTokenizer

from decoder_service.request import Pruning
from tests.support.both_halves import BothHalves, Clip, Picture, Turns, conversation, shown
from tests.support.video_chats import video_chats
from tests.support.video_llava import FRAME_TOKENS, generate, pixel_values, shared_video_llava

NEW_TOKENS = 10
CHATS = video_chats(lambda generator: " ".join(f"w{generator.randrange(7, 250)}" for _ in range(generator.randint(1, 6))))


@cache
def halves() -> BothHalves:
    return BothHalves(shared_video_llava()[0])


def expected(turns: Turns) -> list[int]:
    """transformers' answer: its chat template, its image processor, its model."""
    directory, model = shared_video_llava()
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    text = tokenizer.apply_chat_template(conversation(turns), tokenize=False, add_generation_prompt=True)
    pictures = [one.image for one in shown(turns) if isinstance(one, Picture)]
    clips = [one for one in shown(turns) if isinstance(one, Clip)]
    text = text.replace("<image>", "<image>" * FRAME_TOKENS)
    for clip in clips:
        text = text.replace("<video>", "<frame>" * (len(clip.frames) * (FRAME_TOKENS + 1)), 1)
    ids = tokenizer(text.replace("<frame>", "<video>")).input_ids
    # Its towers see frames alone, so that those of several videos may come as one.
    frames = pixel_values(directory, [frame for clip in clips for frame in clip.frames])[None] if clips else None
    images = pixel_values(directory, pictures) if pictures else None
    return generate(model, ids, images=images, videos=frames, new_tokens=NEW_TOKENS)


@pytest.mark.parametrize("turns", CHATS, ids=range(len(CHATS)))
def test_an_answer_is_that_of_transformers(turns: Turns) -> None:
    assert halves().answers(turns, Pruning(), new_tokens=NEW_TOKENS) == [expected(turns)]


def test_answers_depend_on_what_was_asked() -> None:
    asked = random.Random(1).sample(CHATS, 6)
    answers = {tuple(halves().answers(turns, Pruning(), new_tokens=NEW_TOKENS)[0]) for turns in asked}
    assert len(answers) == len(asked)
