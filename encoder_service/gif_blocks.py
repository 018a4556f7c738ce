"""Where a GIF file ends: at its trailer, whatever lies behind that. Nothing is decoded.

GIF89a, size, palette │ ! … │ , … palette … │ ! … │ ; │ whatever        ! and , are followed by pieces, each behind its length
"""

from __future__ import annotations

_SCREEN_BYTES = 13
_FRAME_BYTES = 10
_FRAME, _EXTENSION, _TRAILER = b",!;"


def up_to_trailer(data: bytes) -> bytes:
    """The file without what lies behind its trailer. Raises IndexError where it has none: it was cut off."""
    place = _SCREEN_BYTES + _palette_bytes(data[10])
    while data[place] != _TRAILER:
        if data[place] == _FRAME:
            place = _behind_pieces(data, place + _FRAME_BYTES + _palette_bytes(data[place + 9]) + 1)
        elif data[place] == _EXTENSION:
            place = _behind_pieces(data, place + 2)
        else:
            place += 1  # padding
    return data[: place + 1]


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _behind_pieces(data: bytes, place: int) -> int:
    while data[place]:
        place += data[place] + 1
    return place + 1
