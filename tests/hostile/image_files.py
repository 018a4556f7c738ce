"""Parts of image files, put together by hand where no encoder would write them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

from PIL import Image

from tests.support.bad_images import saved

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
IFD_ENTRY = struct.Struct("<HHII")


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 48), seed: int = 0) -> Image.Image:
    """Coloured blocks."""
    generator = random.Random(seed)
    small = Image.frombytes("RGB", (8, 6), generator.randbytes(8 * 6 * 3))
    return small.resize(size, Image.Resampling.NEAREST).convert(mode)


def file_of(form: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), seed: int = 0, **options: Any) -> bytes:
    """A good file."""
    return saved(picture(mode, size, seed), form, **options)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """The first bytes, IHDR included."""
    return PNG_MAGIC + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def png_of_zeros(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A true PNG of so many black pixels, never in memory whole."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    line = bytes(1 + (width * depth * channels + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    return png_header(width, height, depth, colour) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def png_with(*extra: bytes) -> bytes:
    """A good PNG with more chunks right behind its header."""
    data = file_of("PNG")
    end = len(PNG_MAGIC) + 25
    return data[:end] + b"".join(extra) + data[end:]


def zeros_compressed(mebibytes: int) -> bytes:
    """A zlib stream of so many zeros: a thousandth of that."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(mebibytes)) + packer.flush()


def tiff(entries: list[tuple[int, int, int, int]], body: bytes = b"", next_ifd: int = 0) -> bytes:
    """A TIFF file of one directory at offset 8: tag, type, count, value each; then the body."""
    table = b"".join(IFD_ENTRY.pack(*entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", next_ifd) + body


def tiff_of(width: int, height: int, body: bytes, **tags: int) -> bytes:
    """A grey TIFF; `tags` like `t277=1` replace or add."""
    count = 8 + sum(int(name[1:]) not in (256, 257, 258, 259, 262, 273, 278, 279) for name in tags)
    offset = 8 + 2 + IFD_ENTRY.size * count + 4
    usual = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: offset, 278: height, 279: len(body)}
    usual |= {int(name[1:]): value for name, value in tags.items()}
    return tiff([(tag, 4, 1, value) for tag, value in usual.items()], body)


def bmp(width: int, height: int, body: bytes, *, bits: int = 8, compression: int = 0, colours: int = 256) -> bytes:
    """A BMP file with a grey palette."""
    palette = b"".join(bytes((level, level, level, 0)) for level in range(256)) if bits <= 8 else b""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, colours, 0)
    offset = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + info + palette + body


def exif(orientation: int = 1, *, offset: int = 8, entries: int = 1, next_ifd: int = 0, thumbnail: int = 0) -> bytes:
    """EXIF data that says so much; `thumbnail` bytes are claimed, none are there."""
    table = IFD_ENTRY.pack(0x0112, 3, 1, orientation) * entries
    if thumbnail:
        table += IFD_ENTRY.pack(0x0201, 4, 1, 8) + IFD_ENTRY.pack(0x0202, 4, 1, thumbnail)
    head = b"II*\0" + struct.pack("<IH", offset, len(table) // IFD_ENTRY.size)
    return b"Exif\0\0" + head + table + struct.pack("<I", next_ifd)


def jpeg_with(marker: int, body: bytes, times: int = 1) -> bytes:
    """A JPEG with segments of this kind right behind its beginning."""
    data = file_of("JPEG")
    return data[:2] + (bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body) * times + data[2:]


def frames(form: str, count: int, size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    """An animation of distinct frames."""
    first, *rest = (picture(size=size, seed=seed) for seed in range(count))
    file = io.BytesIO()
    first.save(file, form, save_all=True, append_images=rest, **options)
    return file.getvalue()


def gif_of_frames(count: int) -> bytes:
    """A GIF of so many frames of one pixel, on a canvas of 64 x 48."""
    frame = b"\x21\xf9\x04\0\x02\0\0\0" + b"\x2c" + struct.pack("<4H", 0, 0, 1, 1) + b"\0" + b"\x02\x02\x44\x01\0"
    return file_of("GIF", "P")[:-1] + frame * count + b";"


def flipped(data: bytes, seed: int, flips: int = 12) -> bytes:
    """Some bits turned, behind the first sixteen bytes, which say what the file is."""
    generator, damaged = random.Random(seed), bytearray(data)
    for _ in range(flips):
        damaged[generator.randrange(16, len(damaged))] ^= 1 << generator.randrange(8)
    return bytes(damaged)
