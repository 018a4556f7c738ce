"""Made pictures are pictures, and a folder's files are its images."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from studies.load.album import Album, folder_images, picture
from vscan.errors import InvalidArgument


@pytest.mark.parametrize("side", [16, 100, 336])
def test_a_made_picture_is_a_png_of_that_size_and_another_one_for_each_seed(side: int) -> None:
    data = picture(1, side)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (side, side))
    assert picture(1, side) == data != picture(2, side)


def test_an_album_holds_what_it_was_told_to(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a file")
    album = Album([tmp_path / "a.png", 5], 16)
    assert album[0].data == b"a file"
    assert album[1].data == picture(5, 16)
    album.load([0])
    (tmp_path / "a.png").unlink()
    assert album[0].data == b"a file"  # held, not read again


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "a.PNG").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    assert [path.name for path in folder_images(tmp_path)] == ["a.PNG", "b.jpg"]
    with pytest.raises(InvalidArgument, match="is not a folder"):
        folder_images(tmp_path / "b.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match="has no images"):
        folder_images(tmp_path / "empty")
