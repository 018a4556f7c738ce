"""Counts the fields of a message before it is parsed: two bytes on the wire become fifty in memory, 64 MiB of them gigabytes.

    0a 06 │ 12 00 │ 12 00 │ 12 00        field 1, a message of three fields of two bytes each        4 fields

Only what is no content is walked through: an image of megabytes is one field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vscan.errors import InvalidArgument

_LEAST_FIELD_BYTES = 2
_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)
_SKIPPED = {_FIXED64: 8, _GROUP: 0, _GROUP_END: 0, _FIXED32: 4}
_MAX_VARINT_BYTES = 10
_Range = tuple[int, int, Any]  # from, to, descriptor of the message there; None where it is not known


def may_exceed(data: bytes, most: int) -> bool:
    """Whether so few bytes cannot hold more fields than that."""
    return len(data) > _LEAST_FIELD_BYTES * most


def check_fields(data: bytes, descriptor: Any, most: int) -> None:
    """Raises InvalidArgument for more than `most` fields, those within others and single numbers of packed ones included.

    What is no message is not refused here: the parser says so better. Work is bounded by `most`.
    """
    ranges: list[_Range] = [(0, len(data), descriptor)]
    count = 0
    while ranges:
        for more, inner in _fields(data, ranges.pop()):
            count += more
            if count > most:
                raise InvalidArgument("request", "too many fields", limit=f"{most:,}")
            if inner is not None:
                ranges.append(inner)


def _fields(data: bytes, within: _Range) -> Iterator[tuple[int, _Range | None]]:
    """How much each field counts for, and the message in it if there is one. Ends early where bytes make no sense."""
    place, end, descriptor = within
    known = {} if descriptor is None else descriptor.fields_by_number
    while place < end:
        tag, place = _varint(data, place, end)
        kind = tag & 7
        if kind == _BYTES:
            size, place = _varint(data, place, end)
            if place + size > end:
                return
            field = known.get(tag >> 3)
            yield _weight(field, size), _message_in(field, place, place + size)
            place += size
        elif kind == _VARINT:
            _, place = _varint(data, place, end)
            yield 1, None
        elif kind in _SKIPPED:
            place += _SKIPPED[kind]
            yield 1, None
        else:
            return


def _weight(field: Any, size: int) -> int:
    """A packed number takes a byte at least, a packed float four."""
    if field is None or field.message_type is not None or field.type in (field.TYPE_BYTES, field.TYPE_STRING):
        return 1
    return 1 + size


def _message_in(field: Any, start: int, end: int) -> _Range | None:
    return None if field is None or field.message_type is None else (start, end, field.message_type)


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """The number and the place behind it; behind the end where it is none."""
    value = 0
    for index in range(place, min(end, place + _MAX_VARINT_BYTES)):
        byte = data[index]
        value |= (byte & 0x7F) << 7 * (index - place)
        if byte < 0x80:
            return value, index + 1
    return 7, end  # wire type 7: nothing follows
