"""The images that are asked about: files of a folder, or pictures that are made."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

from vscan.errors import InvalidArgument
from vscan_client.content import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
_BLOCKS = 12  # a side of a made picture
_GRAIN = 0x03  # bits of noise in every colour, which make the file as large as one of a camera


class Album:
    """Images by number. Each is read or made, and its digest worked out, when it is first asked for or by `load`.

    Args:
        sources: a file, or the seed of a picture that is made, each.
        side_pixels: of made pictures, width and height.
    """

    def __init__(self, sources: Sequence[Path | int], side_pixels: int = 336) -> None:
        self._sources = sources
        self._side_pixels = side_pixels
        self._loaded: dict[int, Image] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, number: int) -> Image:
        if number not in self._loaded:
            source = self._sources[number]
            made = picture(source, self._side_pixels) if isinstance(source, int) else None
            self._loaded[number] = Image.from_path(source) if isinstance(source, Path) else Image.from_bytes(made or b"")
        return self._loaded[number]

    def load(self, numbers: Iterable[int]) -> None:
        """Holds exactly these in memory, so that a run reads no files."""
        wanted = set(numbers)
        self._loaded = {number: image for number, image in self._loaded.items() if number in wanted}
        for number in wanted:
            self[number]


def folder_images(folder: Path) -> list[Path]:
    """The image files of a folder, by name. Raises InvalidArgument where there are none."""
    if not folder.is_dir():
        raise InvalidArgument("--images", f"{folder} is not a folder", limit="a folder, or how many to make")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise InvalidArgument("--images", f"{folder} has no images", limit=", ".join(SUFFIXES))
    return found


def picture(seed: int, side_pixels: int) -> bytes:
    """A PNG file of coloured blocks with some grain, another one for each seed."""
    draw = Random(f"picture {seed}")
    edges = [side_pixels * edge // _BLOCKS for edge in range(_BLOCKS + 1)]
    spans = [end - begin for begin, end in pairwise(edges)]
    rows = bytearray()
    for height in spans:
        line = b"\0" + b"".join(draw.randbytes(3) * width for width in spans)  # 0: the row is not filtered
        rows += line * height
    # One large number each: a loop over pixels would take a second.
    grain = int.from_bytes(draw.randbytes(len(rows))) & int.from_bytes(bytes([_GRAIN]) * len(rows))
    unfiltered = int.from_bytes((b"\0" + b"\xff" * 3 * side_pixels) * side_pixels)
    grainy = (int.from_bytes(rows) ^ (grain & unfiltered)).to_bytes(len(rows))
    head = struct.pack(">IIBBBBB", side_pixels, side_pixels, 8, 2, 0, 0, 0)  # 8 bits, RGB
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(grainy, 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
