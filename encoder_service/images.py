"""Safe decoding: bytes of an image file in, RGB pixels out. Nothing is fetched, and Pillow's global state is left alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vscan.errors import InvalidArgument

_FIELD = "image"
_MEBIBYTE = 2**20
_MEGAPIXEL = 10**6
_BAND_PIXELS = 2**18
# Told apart by their first bytes, never by a name. Pillow's own Image.open() would try every plugin it knows.
_PLUGINS: tuple[tuple[bytes, str, type[ImageFile.ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG", PngImageFile),
    (b"\xff\xd8\xff", "JPEG", JpegImageFile),
    (b"GIF87a", "GIF", GifImageFile),
    (b"GIF89a", "GIF", GifImageFile),
    (b"II*\x00", "TIFF", TiffImageFile),
    (b"MM\x00*", "TIFF", TiffImageFile),
    (b"RIFF", "WebP", WebPImageFile),
    (b"BM", "BMP", BmpImageFile),
)
# Each scan of a progressive JPEG goes over the whole picture, and an empty one takes a few bytes. Encoders write about ten.
_START_OF_SCAN = b"\xff\xda"
MAX_JPEG_SCANS = 100
FORMATS = tuple(dict.fromkeys(name for _, name, _ in _PLUGINS))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What is refused."""

    max_bytes: int
    max_pixels: int
    min_side: int
    max_aspect_ratio: float


def decode_image(data: bytes, limits: ImageLimits, other_formats: str = "") -> Image.Image:
    """The picture as people see it: first frame or page, turned as its EXIF says, transparency on white, RGB, 8 bits a channel.

    The size is read from the header and checked before any pixel is decoded.

    Args:
        other_formats: what else is served, told beside FORMATS where the file is none of them.

    Raises:
        InvalidArgument: not an image of a known format, truncated, damaged, or over a limit.
    """
    check_bytes(data, limits.max_bytes)
    name, plugin = _recognise(data, other_formats)
    with _refusing(name):
        if name == "WebP" and (size := _webp_size(data)):
            check_size(size, limits)  # its plugin allocates the canvas when it opens the file
        if name == "JPEG" and (scans := data.count(_START_OF_SCAN)) > MAX_JPEG_SCANS:
            raise InvalidArgument(_FIELD, f"{scans:,} JPEG scans", limit=f"{MAX_JPEG_SCANS}")
        image = plugin(io.BytesIO(data))
        check_size(image.size, limits)
        image.load()
        return to_rgb(_upright(image))


def check_bytes(data: bytes, max_bytes: int, field: str = _FIELD) -> None:
    """Refuses an empty or too large file. Raises InvalidArgument."""
    if not data:
        raise InvalidArgument(field, "empty")
    if len(data) > max_bytes:
        raise over_bytes(field, len(data), max_bytes)


def check_size(size: tuple[int, int], limits: ImageLimits, field: str = _FIELD) -> None:
    """Refuses a picture of too many pixels, or one too small or too thin. Raises InvalidArgument."""
    width, height = size
    shape = f"{width} x {height} pixels"
    if width * height > limits.max_pixels:
        raise _over(field, width * height, limits.max_pixels, pixels_text, "pixels")
    if min(size) < limits.min_side:
        raise InvalidArgument(field, shape, limit=f"at least {limits.min_side} pixels a side")
    if max(size) > limits.max_aspect_ratio * min(size):
        raise InvalidArgument(field, shape, limit=f"aspect ratio of {limits.max_aspect_ratio:g} to 1")


def to_rgb(image: Image.Image) -> Image.Image:
    """8 bits a channel, transparency on white. Raises InvalidArgument for 32 bits a channel."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InvalidArgument(_FIELD, "32 bits a channel", limit="16 bits")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def bytes_text(count: int) -> str:
    """As people read it."""
    return f"{count / _MEBIBYTE:,.1f} MiB" if count >= _MEBIBYTE else f"{count:,} bytes"


def pixels_text(count: int) -> str:
    """As people read it."""
    if count < _MEGAPIXEL:
        return f"{count:,} pixels"
    return f"{count / _MEGAPIXEL:,.1f}".removesuffix(".0") + " MP"


def over_bytes(field: str, count: int, most: int) -> InvalidArgument:
    """What is refused for its size."""
    return _over(field, count, most, bytes_text, "bytes")


def _over(field: str, count: int, most: int, text: Callable[[int], str], unit: str) -> InvalidArgument:
    """Both as people read them, or exactly where that reads alike."""
    shown, limit = text(count), text(most)
    if shown == limit:
        shown, limit = f"{count:,} {unit}", f"{most:,} {unit}"
    return InvalidArgument(field, shown, limit=limit)


def _recognise(data: bytes, other_formats: str) -> tuple[str, type[ImageFile.ImageFile]]:
    for magic, name, plugin in _PLUGINS:
        if data.startswith(magic) and (name != "WebP" or data[8:12] == b"WEBP"):
            return name, plugin
    raise InvalidArgument(_FIELD, "not an image of a known format", limit=", ".join(FORMATS) + other_formats)


def _on_white(image: Image.Image) -> Image.Image:
    """In bands: one call takes four times the memory, and keeps the event loop waiting, since it holds the interpreter."""
    result = Image.new("RGB", image.size)
    for box in _bands(image.size):
        band = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", band.size, (255, 255, 255, 255))
        result.paste(Image.alpha_composite(white, band).convert("RGB"), box[:2])
    return result


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    try:
        yield
    except (InvalidArgument, MemoryError):
        raise
    except Exception as error:  # what plugins raise on broken files has no common class
        raise InvalidArgument(_FIELD, f"not a readable {name} file: truncated or damaged") from error


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header says (RFC 9649); None for a first chunk that is no image."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows, of about _BAND_PIXELS each."""
    width, height = size
    rows = max(1, _BAND_PIXELS // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _upright(image: Image.Image) -> Image.Image:
    # A picture with unreadable EXIF data is still a picture; it is taken as it lies.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    return image
