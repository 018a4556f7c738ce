"""Protobuf's wire format, written by hand, so that what no library writes can be sent."""

from __future__ import annotations

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = 0, 1, 2, 3, 4, 5


def varint(value: int) -> bytes:
    """A number, seven bits a byte, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, kind: int) -> bytes:
    """What stands before a field."""
    return varint(number << 3 | kind)


def sub(number: int, body: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return tag(number, BYTES) + varint(len(body)) + body


def number(field: int, value: int) -> bytes:
    """A field of a whole number."""
    return tag(field, VARINT) + varint(value)


def question(*parts: bytes, after: bytes = b"") -> bytes:
    """A GenerateRequest of one user's message of these parts; `after` are more fields of the request."""
    message = number(1, 2) + b"".join(sub(2, part) for part in parts)
    return sub(1, sub(1, message)) + sub(5, number(1, 4)) + after


def text(content: bytes) -> bytes:
    """A part."""
    return sub(1, content)
