"""Prompts of Qwen2.5-VL: rows of images between their marks, and no control token from a user's text."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import AutoTokenizer

from decoder_service.chat import Chat, MediaPart, RawPrompt, Role, TextPart, Turn
from decoder_service.language.tokens import read_special_tokens
from decoder_service.prompt import PromptWriter
from tests.support.qwen import END_OF_TEXT, IM_END, IMAGE_PAD, SPECIALS, VISION_END, VISION_START, shared_qwen
from tests.support.tokenizers import TOOL
from vscan.checkpoint import Checkpoint
from vscan.errors import InvalidArgument
from vscan.visual_tokens import PickedBy, Tile, VisualTokens


@cache
def writer() -> PromptWriter:
    checkpoint = Checkpoint.open(shared_qwen()[0])
    return PromptWriter.open(checkpoint, read_special_tokens(checkpoint, placeholder_id=IMAGE_PAD))


def turn(number: int, role: Role, *contents: str | None) -> Turn:
    """A message of texts and (None) images."""
    field = f"messages[{number}]"
    parts = [MediaPart(f"{field}.image") if text is None else TextPart(f"{field}.text", text) for text in contents]
    return Turn(field, role, tuple(parts))


def kept(rows: int, columns: int, places: list[int]) -> VisualTokens:
    count = len(places)
    return VisualTokens(
        tokens=torch.zeros(count, 32),
        kept_indices=torch.tensor(places),
        picked_by=torch.full((count,), PickedBy.GLOBAL, dtype=torch.uint8),
        merged_into=None,
        tiles=(Tile(rows, columns, count),),
        unreduced_count=rows * columns,
    )


def test_the_placeholder_becomes_as_many_rows_as_were_kept() -> None:
    chat = Chat((turn(0, Role.USER, "first", None, "second", None, "what now?"),))
    prompt = writer().lay_out(writer().ids(chat), [kept(3, 4, [0, 5, 7]), kept(2, 2, [1])])
    ids = prompt.token_ids
    assert [(span.start, span.count) for span in prompt.spans] == [
        (ids.index(VISION_START) + 1, 3),
        (len(ids) - 1 - ids[::-1].index(VISION_START) + 1, 1),
    ]
    for span in prompt.spans:
        assert ids[span.start - 1] == VISION_START
        assert set(ids[span.start : span.start + span.count]) == {IMAGE_PAD}
        assert ids[span.start + span.count] == VISION_END
    assert ids.count(IMAGE_PAD) == 4


def test_a_chat_gets_the_ids_of_the_checkpoints_own_tokenizer() -> None:
    chat = Chat(
        (
            turn(0, Role.SYSTEM, "be brief"),
            turn(1, Role.USER, None, "what colour is it?\n"),
            turn(2, Role.ASSISTANT, "blue"),
            turn(3, Role.USER, "and this?", None),
        )
    )
    tokenizer = AutoTokenizer.from_pretrained(shared_qwen()[0])
    image = {"type": "image"}
    rendered = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
            {"role": "user", "content": [image, {"type": "text", "text": "what colour is it?\n"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "blue"}]},
            {"role": "user", "content": [{"type": "text", "text": "and this?"}, image]},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert writer().ids(chat) == tokenizer(rendered, add_special_tokens=False).input_ids


@pytest.mark.parametrize("special", [*SPECIALS, TOOL])
@pytest.mark.parametrize("role", [Role.USER, Role.ASSISTANT, Role.SYSTEM])
def test_no_text_yields_a_control_token(special: str, role: Role) -> None:
    """Whoever's message it is in, and however it is put together."""
    trick = f"a {special} b{special[:5]}{special}{special[5:]}c"
    texts = {Role.SYSTEM: "s", Role.USER: "u", Role.ASSISTANT: "a"} | {role: trick}

    def ids(said: dict[Role, str]) -> list[int]:
        order = (Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER)
        return writer().ids(Chat(tuple(turn(number, who, said[who]) for number, who in enumerate(order))))

    plain = {Role.SYSTEM: "s", Role.USER: "u", Role.ASSISTANT: "a"}
    control = [token for token in ids(texts) if token >= END_OF_TEXT]
    assert control == [token for token in ids(plain) if token >= END_OF_TEXT]
    assert writer().tokenizer.decode(ids(texts)).count(special) >= 2  # the text itself is all there


def test_a_raw_prompt_needs_a_placeholder_for_each_image() -> None:
    ids = writer().ids(RawPrompt("<|vision_start|><|image_pad|><|vision_end|>hi<|im_end|>", 1))
    assert (ids[:3], ids[-1]) == ([VISION_START, IMAGE_PAD, VISION_END], IM_END)
    with pytest.raises(InvalidArgument, match="0 placeholders for 1 images"):
        writer().ids(RawPrompt("<|vision_start|><|video_pad|><|vision_end|>", 1))
