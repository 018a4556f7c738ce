"""Files that are no acceptable image, built in memory."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


def png_bomb(side: int) -> bytes:
    """A valid PNG of side x side black pixels, compressed a thousandfold; built in pieces, never in memory whole."""
    packer = zlib.compressobj(9)
    lines = bytes(1 + (side + 7) // 8) * 100
    packed = b"".join(packer.compress(lines) for _ in range(side // 100)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def saved(image: Image.Image, name: str, **options: Any) -> bytes:
    """The image as a file of a format."""
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def truncated(name: str) -> bytes:
    """The first half of a file of noise."""
    data = saved(Image.effect_noise((64, 64), 90).convert("RGB"), name)
    return data[: len(data) // 2]


def blank(name: str, size: tuple[int, int]) -> bytes:
    """A black picture."""
    return saved(Image.new("RGB", size), name)
