"""Files that are sent as they are: reading them, and telling a video from an image."""

from __future__ import annotations

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


def is_video_file(data: bytes) -> bool:
    """Whether a file is plainly a video: MP4, QuickTime, Matroska or WebM. A GIF may be meant as either, and is none here."""
    if data.startswith(_MATROSKA) or data[4:8] in _OLD_QUICKTIME:
        return True
    return data[4:8] == _FILE_TYPE_BOX and data[8:12] not in _IMAGE_BRANDS


def read_file(path: str | PathLike[str], field: str) -> bytes:
    """The file's bytes. Raises InvalidArgument naming `field` if it cannot be read or is too large for any message."""
    file = Path(path)
    try:
        if (size := file.stat().st_size) > MAX_MESSAGE_BYTES:
            raise InvalidArgument(field, f"{path}: {size:,} bytes", limit=f"{MAX_MESSAGE_BYTES:,} bytes")
        return file.read_bytes()
    except OSError as error:
        raise InvalidArgument(field, f"{path}: {error.strerror or 'cannot be read'}") from error
