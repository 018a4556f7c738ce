"""Images, videos, text and messages."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from vscan.content_key import frames_sha256
from vscan.errors import InvalidArgument
from vscan_client import FrameCount, FrameRate, Image, Message, Role, Text, Video
from vscan_client._files import MAX_MESSAGE_BYTES
from vscan_client.content import Visual, as_visuals

MP4 = b"\x00\x00\x00\x20ftypisom" + bytes(20)
QUICKTIME = b"\x00\x00\x00\x14ftypqt  " + bytes(8)
OLD_QUICKTIME = b"\x00\x00\x00\x08wide\x00\x00\x00\x08mdat"
WEBM = b"\x1a\x45\xdf\xa3" + bytes(20)
GIF = b"GIF89a" + bytes(20)
HEIC = b"\x00\x00\x00\x18ftypheic" + bytes(8)
AVIF = b"\x00\x00\x00\x18ftypavif" + bytes(8)


def test_an_image_is_named_by_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"bytes")
    name = hashlib.sha256(b"bytes").digest()
    assert Image.from_path(tmp_path / "a.png") == Image.from_bytes(b"bytes") == Image(name, b"bytes")
    assert Image.from_digest(name) == Image.from_digest(name.hex()) == Image(name)
    assert Image.from_bytes(b"bytes").digest == name.hex()


def test_bytes_of_an_image_are_not_printed() -> None:
    assert "secret" not in repr(Image.from_bytes(b"secret"))


@pytest.mark.parametrize("digest", [b"short", "zz", "ab" * 31])
def test_a_bad_digest_is_refused(digest: bytes | str) -> None:
    with pytest.raises(InvalidArgument, match=r"image\.sha256"):
        Image.from_digest(digest)


def test_one_image_or_several(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"a")
    image = Image.from_bytes(b"a")
    assert as_visuals(path) == as_visuals(str(path)) == as_visuals(b"a") == as_visuals(image) == (image,)
    assert as_visuals([path, b"a", image]) == (image, image, image)
    assert as_visuals([]) == ()


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"images\[1\]: .*gone.png: No such file") as caught:
        as_visuals([b"a", tmp_path / "gone.png"])
    assert caught.value.field == "images[1]"


@pytest.mark.parametrize("data", [MP4, QUICKTIME, OLD_QUICKTIME, WEBM])
def test_what_is_plainly_a_video_becomes_one(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "named.png"
    path.write_bytes(data)
    video = Video.from_bytes(data)
    assert as_visuals([path, data, video]) == (video, video, video)
    assert Message.user(path, "what?", data).parts == (video, Text("what?"), video)


@pytest.mark.parametrize("data", [GIF, HEIC, AVIF, b"", b"RIFF"])
def test_what_may_be_an_image_stays_one_unless_it_is_said_to_be_a_video(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "named.mp4"
    path.write_bytes(data)
    assert as_visuals([data, path]) == (Image.from_bytes(data), Image.from_path(path))
    assert Video.from_path(path) == Video.from_bytes(data) == Video(hashlib.sha256(data).digest(), data)


def test_a_video_says_which_frames_are_looked_at() -> None:
    name = hashlib.sha256(MP4).digest()
    assert Video.from_bytes(MP4, frames=4) == Video(name, MP4, sampling=FrameCount(4))
    assert Video.from_bytes(MP4, frames=4).bare == Video.from_digest(name.hex(), frames=4)
    assert Video.from_digest(name, frames_per_second=0.5).sampling == FrameRate(0.5)
    with pytest.raises(InvalidArgument, match=r"video\.sampling: either"):
        Video.from_bytes(MP4, frames=4, frames_per_second=1)
    with pytest.raises(InvalidArgument, match=r"video\.sampling\.frames: 0"):
        Video.from_bytes(MP4, frames=0)
    with pytest.raises(InvalidArgument, match=r"video\.sampling\.frames_per_second"):
        Video.from_digest(name, frames_per_second=float("nan"))


def test_frames_make_a_video_named_after_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "0.png"
    path.write_bytes(b"zero")
    video = Video.from_frames([path, b"one", Image.from_bytes(b"two")], frames_per_second=2)
    files = (b"zero", b"one", b"two")
    assert video == Video(frames_sha256(files), frames=files, sampling=FrameRate(2))
    assert video.is_whole
    assert video.bare == Video(video.sha256, sampling=FrameRate(2))
    assert not video.bare.is_whole
    assert "zero" not in repr(video)


@pytest.mark.parametrize("frames", [[], [b"a", Image.from_digest(bytes(32))]])
def test_frames_are_there_themselves(frames: list[bytes | Image]) -> None:
    with pytest.raises(InvalidArgument, match=r"video\.frames: .*themselves"):
        Video.from_frames(frames)


def test_a_frame_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"video\.frames\.images\[1\]: .*gone.png: No such file"):
        Video.from_frames([b"a", tmp_path / "gone.png"])


@pytest.mark.parametrize("read", [as_visuals, Image.from_path, Video.from_path])
def test_a_file_that_no_message_can_hold_is_not_read(tmp_path: Path, read: Callable[[Path], Visual]) -> None:
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(MAX_MESSAGE_BYTES + 1)  # a hole: takes no room on the disk
    with pytest.raises(InvalidArgument, match=r"film.mp4: 268,435,457 bytes, limit 268,435,456 bytes"):
        read(path)


def test_in_a_message_a_string_is_text_and_a_path_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"a")
    image = Image.from_bytes(b"a")
    message = Message.user(path, "what?", b"a", image, Text("t"))
    assert message == Message(Role.USER, (image, Text("what?"), image, image, Text("t")))
    assert Message.assistant("yes") == Message(Role.ASSISTANT, (Text("yes"),))
    assert Message.system("be brief") == Message(Role.SYSTEM, (Text("be brief"),))
