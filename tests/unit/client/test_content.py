"""Images, text and messages."""

import hashlib
from pathlib import Path

import pytest

from vscan.errors import InvalidArgument
from vscan_client import Image, Message, Role, Text
from vscan_client.content import as_images


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
    assert as_images(path) == as_images(str(path)) == as_images(b"a") == as_images(image) == (image,)
    assert as_images([path, b"a", image]) == (image, image, image)
    assert as_images([]) == ()


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"images\[1\]: .*gone.png: No such file") as caught:
        as_images([b"a", tmp_path / "gone.png"])
    assert caught.value.field == "images[1]"


def test_in_a_message_a_string_is_text_and_a_path_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"a")
    image = Image.from_bytes(b"a")
    message = Message.user(path, "what?", b"a", image, Text("t"))
    assert message == Message(Role.USER, (image, Text("what?"), image, image, Text("t")))
    assert Message.assistant("yes") == Message(Role.ASSISTANT, (Text("yes"),))
    assert Message.system("be brief") == Message(Role.SYSTEM, (Text("be brief"),))
