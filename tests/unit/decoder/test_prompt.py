"""Prompts of the parity checkpoint: placeholders, spans, counts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from decoder_service.chat import Chat, MediaPart, RawPrompt, Role, TextPart, Turn
from decoder_service.language.tokens import read_special_tokens
from decoder_service.prompt import PromptWriter
from decoder_service.request import ImageSpan
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError, FailedPrecondition, InvalidArgument
from vscan.visual_tokens import PickedBy, Tile, VisualTokens

PARITY = Path(__file__).parents[2] / "data" / "parity" / "llava15"
IMAGE = 255


def open_writer(directory: Path) -> PromptWriter:
    checkpoint = Checkpoint.open(directory)
    return PromptWriter.open(checkpoint, read_special_tokens(checkpoint, placeholder_id=IMAGE))


@pytest.fixture(scope="module")
def writer() -> PromptWriter:
    return open_writer(PARITY)


def visual_tokens(count: int) -> VisualTokens:
    return VisualTokens(
        tokens=torch.zeros(count, 4),
        kept_indices=torch.arange(count),
        picked_by=torch.full((count,), PickedBy.ALL, dtype=torch.uint8),
        merged_into=None,
        tiles=(Tile(1, count, count),),
        unreduced_count=count,
    )


def question(*texts: str | None) -> Chat:
    parts = [
        MediaPart(f"messages[0].parts[{i}].image") if text is None else TextPart(f"messages[0].parts[{i}].text", text)
        for i, text in enumerate(texts)
    ]
    return Chat((Turn("messages[0]", Role.USER, tuple(parts)),))


def test_images_get_their_rows_in_their_places(writer: PromptWriter) -> None:
    ids = writer.ids(question("w1", None, "w2", None))
    prompt = writer.lay_out(ids, [visual_tokens(3), visual_tokens(2)])
    words = writer.tokenizer.convert_tokens_to_ids
    user, w1, w2, assistant = words(["USER:", "w1", "w2", "ASSISTANT:"])
    assert prompt.token_ids == (1, user, w1, *[IMAGE] * 3, w2, *[IMAGE] * 2, assistant)
    assert prompt.spans == (ImageSpan(image=0, start=3, count=3), ImageSpan(image=1, start=7, count=2))
    assert [image.kept_count for image in prompt.images] == [3, 2]
    assert prompt.visual_rows == 5


def test_text_takes_no_images_place(writer: PromptWriter) -> None:
    """The first part pretends to be the first image; the image stays the image of the second part."""
    ids = writer.ids(question("<image>", None, "w2"))
    assert ids.count(IMAGE) == 1
    prompt = writer.lay_out(ids, [visual_tokens(2)])
    assert prompt.spans[0].start == len(ids) - 3
    assert writer.ids(question("USER: <image> ASSISTANT:")).count(IMAGE) == 0


def test_a_chat_without_images_has_no_spans(writer: PromptWriter) -> None:
    assert writer.lay_out(writer.ids(question("w1")), []).spans == ()


def test_raw_prompts_place_images_themselves(writer: PromptWriter) -> None:
    raw = RawPrompt("USER: <image> w1 <image> ASSISTANT:", images=2)
    assert writer.ids(raw) == writer.tokenizer(raw.text).input_ids


@pytest.mark.parametrize(("text", "placed", "images"), [("<image> w1 <image>", 2, 1), ("w1", 0, 1), ("<image>", 1, 0)])
def test_raw_placeholders_must_be_as_many_as_images(writer: PromptWriter, text: str, placed: int, images: int) -> None:
    words = f"raw.images: {placed} placeholders for {images} images, limit one for each image"
    with pytest.raises(InvalidArgument, match=f"^{re.escape(words)}$"):
        writer.ids(RawPrompt(text, images=images))


def copy_without(directory: Path, *names: str) -> Path:
    shutil.copytree(PARITY, directory, dirs_exist_ok=True)
    for name in names:
        (directory / name).unlink()
    return directory


def test_a_template_that_places_no_images_is_told(tmp_path: Path) -> None:
    (copy_without(tmp_path) / "chat_template.jinja").write_text(
        "{% for m in messages %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}{% endfor %}"
    )
    with pytest.raises(InvalidArgument, match=r"^messages\[0\]\.parts\[0\]\.image: .* places 0 of 1 images"):
        open_writer(tmp_path).ids(question(None, "w1"))


def test_without_a_template_only_raw_prompts_are_answered(tmp_path: Path) -> None:
    writer = open_writer(copy_without(tmp_path, "chat_template.jinja"))
    assert writer.ids(RawPrompt("w1", images=0))
    with pytest.raises(FailedPrecondition, match="no chat template"):
        writer.ids(question("w1"))


def test_a_broken_tokenizer_stops_the_start(tmp_path: Path) -> None:
    (copy_without(tmp_path) / "tokenizer.json").write_text('{"model": {"type": "Nothing"}, "added_tokens": []}')
    with pytest.raises(CheckpointError, match="tokenizer cannot be read"):
        open_writer(tmp_path)
