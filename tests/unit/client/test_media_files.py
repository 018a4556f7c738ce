"""Which files of a folder are warmed."""

import os
import socket
from pathlib import Path

import pytest

from vscan_client.cli.media_files import find_media

PNG, MP4 = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x20ftypisom"


def make(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def names(folder: Path) -> list[str]:
    return [os.path.relpath(file, folder) for file in find_media([str(folder)]).files]


def test_images_and_videos_are_told_by_their_names_or_their_first_bytes(tmp_path: Path) -> None:
    media = {"b/2.JPG": b"", "b/1.webm": b"", "a": PNG, "c": MP4, "d": b"RIFF\0\0\0\0WEBP", "e.txt": b"GIF89a"}
    others = {"notes.txt": b"text", "empty": b"", "f": b"\x00\x00\x00\x20ftypavif", "g": b"RIFF\0\0\0\0WAVE"}
    make(tmp_path, media | others | {".hidden.png": PNG, ".git/a.png": PNG})
    found = find_media([str(tmp_path)])
    assert names(tmp_path) == ["a", "c", "d", "e.txt", "b/1.webm", "b/2.JPG"]
    assert (found.others, found.unreadable) == (len(others), [])


def test_a_file_that_is_named_is_taken_whatever_it_is(tmp_path: Path) -> None:
    make(tmp_path, {"notes.txt": b"text"})
    given = [str(tmp_path / "notes.txt"), str(tmp_path / "gone.png")]
    assert find_media(given).files == given


def test_links_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    make(tmp_path, {"a/1.png": PNG, "b/2.png": PNG})
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "beside").symlink_to(tmp_path / "b")
    (tmp_path / "link.png").symlink_to(tmp_path / "a" / "1.png")
    assert names(tmp_path) == ["link.png", "a/1.png", "a/beside/2.png"]
    twice = find_media([str(tmp_path / "a"), str(tmp_path)])
    assert len(twice.files) == 3


def test_what_cannot_be_read_is_told_and_the_rest_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, {"a/1.png": PNG, "locked/2.png": PNG})
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    scan = os.scandir

    def scandir(path: str) -> object:  # the tests may run as root, whom nothing is locked to
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_media([str(tmp_path)])
    assert [os.path.relpath(file, tmp_path) for file in found.files] == ["a/1.png"]
    assert sorted((os.path.relpath(path, tmp_path), reason) for path, reason in found.unreadable) == [
        ("dangling", "No such file or directory"),
        ("locked", "Permission denied"),
        ("loop", "Too many levels of symbolic links"),
    ]


def test_pipes_and_sockets_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s.png"))
        found = find_media([str(tmp_path)])
    assert (found.files, found.others) == ([], 2)


def test_an_empty_folder_has_nothing(tmp_path: Path) -> None:
    assert find_media([str(tmp_path)]) == find_media([])
