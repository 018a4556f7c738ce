"""A file that is replaced while it is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vscan.watched_file import FileTooLarge, WatchedFile


def test_a_version_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    file = WatchedFile(path, max_bytes=10)
    assert [file.read_if_changed() for _ in range(3)] == [b"one", None, None]


def test_a_rename_over_it_is_seen(tmp_path: Path) -> None:
    path, new = tmp_path / "f", tmp_path / "new"
    path.write_bytes(b"one")
    file = WatchedFile(path, max_bytes=10)
    file.read_if_changed()
    new.write_bytes(b"two")
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))  # as old, and as long
    new.replace(path)
    assert file.read_if_changed() == b"two"


def test_a_link_that_leads_elsewhere_is_seen(tmp_path: Path) -> None:
    """As Kubernetes replaces what is in a mounted secret: FILE → ..data/FILE, and ..data is swapped."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "f").write_text(version)
    data, path = tmp_path / "..data", tmp_path / "f"
    data.symlink_to("1")
    path.symlink_to("..data/f")
    file = WatchedFile(path, max_bytes=10)
    assert file.read_if_changed() == b"1"
    (tmp_path / "..tmp").symlink_to("2")
    (tmp_path / "..tmp").replace(data)
    assert file.read_if_changed() == b"2"
    assert file.read_if_changed() is None


def test_one_that_was_away_is_read_again(tmp_path: Path) -> None:
    path, away = tmp_path / "f", tmp_path / "away"
    path.write_bytes(b"one")
    file = WatchedFile(path, max_bytes=10)
    file.read_if_changed()
    path.rename(away)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            file.read_if_changed()
    away.rename(path)
    assert file.read_if_changed() == b"one"


def test_one_that_is_too_large_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(11))
    file = WatchedFile(path, max_bytes=10)
    with pytest.raises(FileTooLarge, match="more than 10 bytes"):
        file.read_if_changed()
    assert file.read_if_changed() is None
    path.write_bytes(bytes(10))
    assert file.read_if_changed() == bytes(10)


@pytest.mark.timeout(20)
def test_one_that_became_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one")
    file = WatchedFile(path, max_bytes=10)
    file.read_if_changed()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        file.read_if_changed()
