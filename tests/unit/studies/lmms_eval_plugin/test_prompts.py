"""Questions of lmms-eval's tasks, as messages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pictures

from studies.lmms_eval_plugin.media import png, visuals_of
from studies.lmms_eval_plugin.prompts import from_messages, from_text, misses_placeholders
from vscan.errors import InvalidArgument
from vscan.specs import FrameCount, FrameRate
from vscan_client import Image, Message, Role, Text, Video

A, B = Image.from_bytes(b"a"), Image.from_bytes(b"b")


def gradient(mode: str = "RGB") -> Pictures.Image:
    """A picture whose pixels differ."""
    return Pictures.linear_gradient("L").resize((40, 30)).rotate(20).convert(mode)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Which?", (A, B, Text("Which?"))),
        ("<image>\n<image>\nWhich? ", (A, B, Text("Which? "))),
        ("Is <image> in <image>?", (Text("Is "), A, Text(" in "), B, Text("?"))),
        ("Is <image 2> in <image 1>?", (Text("Is "), B, Text(" in "), A, Text("?"))),
        ("<image>\nWhich?", (A, B, Text("Which?"))),  # one for two
        ("Is <image 1> in <image 1>?", (A, B, Text("Is  in ?"))),
    ],
)
def test_images_stand_where_their_placeholders_do_else_before_the_text(text: str, parts: tuple[Any, ...]) -> None:
    assert from_text(text, [A, B]) == (Message(Role.USER, parts),)


def test_it_is_known_where_placeholders_are_missed() -> None:
    assert misses_placeholders("<image>\nWhich?", [A, B])
    assert not misses_placeholders("Which?", [A, B])
    assert not misses_placeholders("<image> or <image>?", [A, B])


def test_text_alone_stays_as_it_is() -> None:
    assert from_text(" What is <image>?\n", []) == (Message(Role.USER, (Text(" What is <image>?\n"),)),)


def test_the_system_prompt_comes_first() -> None:
    assert from_text("Which?", [A], "Briefly.")[0] == Message.system("Briefly.")


def test_a_conversation_keeps_its_turns_and_the_order_of_its_parts() -> None:
    conversation: list[dict[str, Any]] = [
        {"role": "system", "content": "Briefly."},
        {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "image", "url": gradient()}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A ramp."}]},
        {"role": "user", "content": "Of which colour?"},
    ]
    picture = Image.from_bytes(png(gradient()))
    turns = (
        Message(Role.USER, (Text("Look:"), picture)),
        Message.assistant("A ramp."),
        Message(Role.USER, (Text("Of which colour?"),)),
    )
    assert from_messages(conversation, None) == (Message.system("Briefly."), *turns)
    assert from_messages(conversation, None, "At length.") == (Message.system("At length."), *turns)


def test_a_text_with_placeholders_that_lmms_eval_made_a_message_of_is_read_as_such() -> None:
    content = [{"type": "image", "url": gradient()}, {"type": "text", "text": "Is <image> a ramp?"}]
    (message,) = from_messages([{"role": "user", "content": content}], None)
    assert message == Message(Role.USER, (Text("Is "), Image.from_bytes(png(gradient())), Text(" a ramp?")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_a_picture_is_sent_pixel_for_pixel(mode: str) -> None:
    back = Pictures.open(io.BytesIO(png(gradient(mode))))
    assert back.mode == mode
    assert back.tobytes() == gradient(mode).tobytes()


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "I", "F"])
def test_a_picture_that_png_cannot_hold_is_sent_as_rgb(mode: str) -> None:
    back = Pictures.open(io.BytesIO(png(gradient(mode))))
    assert back.mode == "RGB"
    assert back.tobytes() == gradient(mode).convert("RGB").tobytes()


def test_a_picture_that_its_task_has_not_turned_is_not_turned_on_the_way(tmp_path: Path) -> None:
    exif = Pictures.Exif()
    exif[0x0112] = 6  # a camera held sideways
    gradient().save(tmp_path / "turned.png", exif=exif)
    held = Pictures.open(tmp_path / "turned.png")
    held.load()
    back = Pictures.open(io.BytesIO(png(held)))
    assert 0x0112 not in back.getexif()
    assert back.size == gradient().size


def test_videos_are_paths_or_frames(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    gradient().save(tmp_path / "a.png")
    path, frames = str(tmp_path / "a.mp4"), [gradient(), gradient("L")]
    held = [path, {"type": "video", "url": path}, frames, str(tmp_path / "a.png")]
    file, same, sent, image = visuals_of(held, FrameCount(4))
    assert file == same == Video.from_path(path, frames=4)
    assert sent == Video.from_frames([png(frame) for frame in frames])
    assert isinstance(image, Image)
    assert visuals_of([frames], FrameRate(2.0)) == [Video.from_frames([png(frame) for frame in frames], frames_per_second=2.0)]


@pytest.mark.parametrize(
    ("held", "named"),
    [
        (["https://example.org/a.png"], "visuals[0].image: 'https://example.org/a.png', limit files of this machine"),
        ([b"", {"array": [0.0], "sampling_rate": 16000}], "visuals[1].audio: sound"),
        ([{"type": "video", "url": "a.mp4", "video_start": 3.0}], "visuals[0].video: a part of a video"),
        ([7], "visuals[0].image: int, limit a PIL picture"),
        (["nowhere.mp4"], "visuals[0].video"),
    ],
)
def test_what_cannot_be_sent_is_named(held: list[Any], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        visuals_of(held, None)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"role": "tool", "content": "x"}, "messages[0].role: 'tool', limit system, user, assistant"),
        ({"role": "user", "content": [{"type": "audio", "url": "a.wav"}]}, "messages[0].content[0].type: 'audio'"),
        (
            {"role": "user", "content": [{"type": "video", "url": "a.mp4", "end_time": 3.0}]},
            "messages[0].content[0].video: a part of a video",
        ),
    ],
)
def test_what_cannot_be_said_is_named(message: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        from_messages([message], None)
    assert named in str(caught.value)
