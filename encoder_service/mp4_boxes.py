"""What an MP4 file claims, read before a demuxer believes it: two kilobytes of tables can claim samples that fill gigabytes.

ftyp │ moov: mvhd │ trak: … stsz elst … │ trak: … │ mdat ░░░░░░░ │ moof: … trun …        everything but mdat is looked at
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from vscan.errors import InvalidArgument

_FIELD = "video"
_HEADER_BYTES = 8
_LONG_HEADER_BYTES = 16
_CONTENT = (b"moov", b"moof", b"mdat")
# How far behind the beginning of its name a box has its count. A lookahead, since a name may begin within another.
_COUNTS = {b"stsz": 12, b"stz2": 12, b"trun": 8, b"elst": 8, b"cmov": 0}
_COUNTED = re.compile(b"(?=(" + b"|".join(_COUNTS) + b"))")


def without_sound(data: bytes, max_samples: int) -> bytearray:
    """The file with every track but those of pictures made free space, at the same length.

    A demuxer makes an entry for each sample that a table claims, as often as a list of edits says. Sound in QuickTime files
    claims one for each tick of its clock, so it goes first; what is left is counted wherever it may hide.

    Raises:
        InvalidArgument: the file ends within a box, or claims over `max_samples` samples, or over ten times as many edited.
    """
    shown, samples, edits = bytearray(data), 0, 1
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"mdat":
            continue
        for child, first, last in _boxes(data, start, end):
            if (kind, child) == (b"moov", b"trak") and b"vide" not in data[first:last]:
                shown[first - 4 : last] = b"free" + bytes(last - first)
        for found in _COUNTED.finditer(shown, max(0, start - _LONG_HEADER_BYTES), end):
            name = found[1]
            place = found.start() + _COUNTS[name]
            if name == b"cmov":
                raise InvalidArgument(_FIELD, "a compressed MP4 header", limit="headers as they are")
            count = int.from_bytes(shown[place : place + 4], "big")
            samples, edits = (samples, edits + count) if name == b"elst" else (samples + count, edits)
    if samples > max_samples or samples * edits > 10 * max_samples:
        raise InvalidArgument(_FIELD, f"{samples:,} frames, {edits - 1:,} edits", limit=f"{max_samples:,} frames")
    return shown


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, first byte behind the header, and end of each box. Raises InvalidArgument where content is cut off."""
    while start + _HEADER_BYTES <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body, size = start + _HEADER_BYTES, size or end - start
        if size == 1 and start + _LONG_HEADER_BYTES <= end:
            (size,), body = struct.unpack_from(">Q", data, body), start + _LONG_HEADER_BYTES
        if size < body - start or start + size > end:
            if kind in _CONTENT:
                raise InvalidArgument(_FIELD, "not a readable MP4 file: truncated or damaged")
            size = end - start  # anything may follow what was written
        yield kind, body, start + size
        start += size
