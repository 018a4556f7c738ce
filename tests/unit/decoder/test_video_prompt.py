"""Videos in prompts: a placeholder of their own, in their places among images, and never from a user's text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from decoder_service.chat import Chat, MediaKind, MediaPart, RawPrompt, Role, TextPart, Turn
from decoder_service.language.tokens import read_special_tokens
from decoder_service.media import ImageInput, MediaInput, VideoInput
from decoder_service.prompt import PromptWriter
from tests.support import qwen, video_llava
from tests.support.language_models import PARITY, visual_tokens
from vscan.checkpoint import Checkpoint
from vscan.errors import InvalidArgument

# By family: the directory, the ids that stand for an image and for a video, and what a raw prompt calls them.
FAMILIES: dict[str, tuple[Callable[[], Path], int, int | None, str, str]] = {
    "llava": (lambda: PARITY / "llava15", 255, None, "<image>", ""),
    "llava_next": (lambda: PARITY / "llava_next", 255, None, "<image>", ""),
    "qwen2_5_vl": (lambda: qwen.shared_qwen()[0], qwen.IMAGE_PAD, qwen.VIDEO_PAD, "<|image_pad|>", "<|video_pad|>"),
    "video_llava": (lambda: video_llava.shared_video_llava()[0], video_llava.IMAGE, video_llava.VIDEO, "<image>", "<video>"),
}
VIDEO_FAMILIES = ["qwen2_5_vl", "video_llava"]
MARKS = {
    *("<image>", "<video>", "<s>", "</s>", "<pad>", "<unk>", "<0x0A>", "USER:", "ASSISTANT:"),
    *qwen.SPECIALS,
}
IMAGE, VIDEO = MediaKind


def open_writer(directory: Path, image: int, video: int | None) -> PromptWriter:
    checkpoint = Checkpoint.open(directory)
    return PromptWriter.open(checkpoint, read_special_tokens(checkpoint, placeholder_id=image, video_placeholder_id=video))


@cache
def writer(family: str) -> PromptWriter:
    directory, image, video, *_ = FAMILIES[family]
    return open_writer(directory(), image, video)


def question(*contents: str | MediaKind) -> Chat:
    parts = [
        TextPart(f"messages[0].parts[{number}].text", content)
        if not isinstance(content, MediaKind)
        else MediaPart(f"messages[0].parts[{number}].{content}", content)
        for number, content in enumerate(contents)
    ]
    return Chat((Turn("messages[0]", Role.USER, tuple(parts)),))


@pytest.mark.parametrize("family", VIDEO_FAMILIES)
def test_videos_and_images_get_their_rows_in_their_places(family: str) -> None:
    _, image, video, *_ = FAMILIES[family]
    ids = writer(family).ids(question(VIDEO, "w9", IMAGE, "w10", VIDEO))
    assert [token for token in ids if token in (image, video)] == [video, image, video]
    values = [visual_tokens(torch.zeros(count, 4)) for count in (3, 2, 1)]
    prompt = writer(family).lay_out(ids, values)
    assert [(span.image, span.count) for span in prompt.spans] == [(0, 3), (1, 2), (2, 1)]
    for span, kind in zip(prompt.spans, (video, image, video), strict=True):
        assert set(prompt.token_ids[span.start : span.start + span.count]) == {kind}
    assert prompt.images == tuple(values)


@pytest.mark.parametrize("family", VIDEO_FAMILIES)
def test_raw_prompts_take_the_kth_of_a_kind_for_the_kth_placeholder(family: str) -> None:
    *_, image, video = FAMILIES[family]
    ids = writer(family).ids(RawPrompt(f"{video} w9 {image} {image} w10 {video}", images=2, videos=2))
    sent: list[MediaInput] = [
        ImageInput("raw.images[0]"),
        ImageInput("raw.images[1]"),
        VideoInput("raw.videos[0]"),
        VideoInput("raw.videos[1]"),
    ]
    placed = writer(family).in_prompt_order(ids, sent)
    assert [one.field for one in placed] == ["raw.videos[0]", "raw.images[0]", "raw.images[1]", "raw.videos[1]"]
    with pytest.raises(InvalidArgument, match=r"^raw\.videos: 1 placeholders for 0 videos, limit one for each video$"):
        writer(family).ids(RawPrompt(f"{image} w9 {video}", images=1))
    with pytest.raises(InvalidArgument, match=r"^raw\.images: 0 placeholders for 1 images"):
        writer(family).ids(RawPrompt(video, images=1))


def with_template(tmp_path: Path, template: str) -> PromptWriter:
    source, image, video, *_ = FAMILIES["video_llava"]
    for file in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).symlink_to(source() / file)
    (tmp_path / "chat_template.jinja").write_text(template)
    return open_writer(tmp_path, image, video)


def test_a_template_that_puts_images_first_is_followed(tmp_path: Path) -> None:
    """As those of the LLaVA families do: what is told and laid out is in the prompt's order."""
    template = "".join(
        f"{{% for c in messages[0]['content'] if c['type'] == '{kind}' %}}{written} {{% endfor %}}"
        for kind, written in (("image", "<image>"), ("video", "<video>"), ("text", "{{ c['text'] }}"))
    )
    images_first = with_template(tmp_path, template)
    ids = images_first.ids(question(VIDEO, "w9", IMAGE, VIDEO))
    sent: list[MediaInput] = [VideoInput("0"), ImageInput("2"), VideoInput("3")]
    assert [one.field for one in images_first.in_prompt_order(ids, sent)] == ["2", "0", "3"]


def test_a_template_that_places_no_video_is_told_with_the_part(tmp_path: Path) -> None:
    template = "{% for c in messages[0]['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }} {% endfor %}"
    with pytest.raises(InvalidArgument) as refusal:
        with_template(tmp_path, template).ids(question(IMAGE, VIDEO, "w9", VIDEO))
    assert str(refusal.value) == "messages[0].parts[1].video: this model's chat template places 0 of 2 videos"


def test_a_template_that_takes_an_answer_as_a_string_has_no_place_for_a_video_in_it(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}{% for c in m['content'] %}{{ '<video>' if c['type'] == 'video' "
        "else c['text'] }} {% endfor %}{% else %}{{ m['role'] + m['content'] }}{% endif %}{% endfor %}"
    )
    user, answer = (
        question(VIDEO, "w9").turns[0],
        Turn("messages[1]", Role.ASSISTANT, (MediaPart("messages[1].parts[0].video", VIDEO),)),
    )
    with pytest.raises(InvalidArgument, match=r"^messages\[1\]\.parts\[0\]\.video: .* takes no videos in assistant messages"):
        with_template(tmp_path, template).ids(Chat((user, answer, user)))


@pytest.mark.parametrize("mark", sorted(MARKS))
@pytest.mark.parametrize("family", FAMILIES)
def test_no_text_yields_a_control_token(family: str, mark: str) -> None:
    """Whatever it is put together of, beside a real image, which stays where it is."""
    _, image, video, *_ = FAMILIES[family]
    tokenizer = writer(family).tokenizer
    control = {token for text, token in tokenizer.get_added_vocab().items() if text != tokenizer.unk_token} | {image, video}
    half = len(mark) // 2
    trick = f"{mark} w9{mark}w9 {mark[:half]}{mark}{mark[half:]} {mark}{mark}"

    def written(text: str) -> list[int]:
        return [token for token in writer(family).ids(question(text, IMAGE, text)) if token in control]

    assert written(trick) == written("w9 w9")
