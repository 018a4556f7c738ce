"""Files that are sent as they are: reading them, naming them, and telling a video from an image, and both from other files."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from vscan.errors import InvalidArgument

# The largest reply holds tokens: 2,880 of 8,192 float32 values are 90 MiB. What is sent is the server's to limit, but a file
# that no message of the SDK can hold is refused before it is read.
MAX_MESSAGE_BYTES = 256 * 1024 * 1024

_MATROSKA = b"\x1a\x45\xdf\xa3"  # how EBML begins: Matroska and WebM
# MP4 and QuickTime begin with a box of this type and then their brand; so do HEIF and AVIF, which are images.
_FILE_TYPE_BOX = b"ftyp"
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # from before there was that box
_IMAGE_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"}
_HEAD_BYTES = 16  # enough to tell what a file is
_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_VIDEO_SUFFIXES = {".m4v", ".mkv", ".mov", ".mp4", ".webm"}
_IMAGE_MAGICS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM")


@dataclass(frozen=True, slots=True)
class FileName:
    """What a file is called that was read once: its SHA-256, 32 bytes."""

    sha256: bytes
    is_video: bool
    size_bytes: int


def is_video_file(data: bytes) -> bool:
    """Whether a file is plainly a video: MP4, QuickTime, Matroska or WebM. A GIF may be meant as either, and is none here."""
    if data.startswith(_MATROSKA) or data[4:8] in _OLD_QUICKTIME:
        return True
    return data[4:8] == _FILE_TYPE_BOX and data[8:12] not in _IMAGE_BRANDS


def is_media_file(path: str) -> bool:
    """Whether a file is named like an image or a video, or begins like one. Raises OSError if it cannot be read.

    Only regular files are: others may have no end.
    """
    file = Path(path)
    if not stat.S_ISREG(file.stat().st_mode):
        return False
    if file.suffix.lower() in _IMAGE_SUFFIXES | _VIDEO_SUFFIXES:
        return True
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    return head.startswith(_IMAGE_MAGICS) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP") or is_video_file(head)


def name_file(path: str | PathLike[str], field: str) -> FileName:
    """Reads a file once, piece by piece. Raises InvalidArgument as `read_file` does, and for what is no regular file."""
    file = Path(path)
    try:
        size = _size(file, field)
        if not stat.S_ISREG(file.stat().st_mode):
            raise InvalidArgument(field, f"{path}: not a file")
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
            opened.seek(0)
            return FileName(hashlib.file_digest(opened, "sha256").digest(), is_video_file(head), size)
    except OSError as error:
        raise _unreadable(field, path, error) from error


def read_file(path: str | PathLike[str], field: str) -> bytes:
    """The file's bytes. Raises InvalidArgument naming `field` if it cannot be read or is too large for any message."""
    file = Path(path)
    try:
        _size(file, field)
        return file.read_bytes()
    except OSError as error:
        raise _unreadable(field, path, error) from error


def _size(file: Path, field: str) -> int:
    if (size := file.stat().st_size) > MAX_MESSAGE_BYTES:
        raise InvalidArgument(field, f"{file}: {size:,} bytes", limit=f"{MAX_MESSAGE_BYTES:,} bytes")
    return size


def _unreadable(field: str, path: str | PathLike[str], error: OSError) -> InvalidArgument:
    return InvalidArgument(field, f"{path}: {error.strerror or 'cannot be read'}")
