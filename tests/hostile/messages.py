"""Bytes that are no message, or a message that no client would write."""

from __future__ import annotations

import struct
from functools import partial

from grpc import StatusCode

from tests.hostile.case import ANSWERED, DESCRIBE, ENCODE, GENERATE, LOOKUP, Case, Family, Target, refused
from tests.hostile.image_files import file_of
from tests.hostile.wire_bytes import BYTES, FIXED32, FIXED64, GROUP, GROUP_END, number, question, sub, tag, text, varint
from vscan.v1 import encoder_pb2

_NONE = refused("request")
_HELLO = text(b"what colour is the star")
_UNKNOWN = refused(None, StatusCode.UNIMPLEMENTED)
_TOO_LARGE = refused(None, StatusCode.RESOURCE_EXHAUSTED)


def message_cases() -> list[Case]:
    """All of them."""
    return [*_undecodable().cases, *_amplifying().cases, *_odd().cases, *_encoder().cases]


def _undecodable() -> Family:
    family = Family("no messages")
    family.call("0xff", lambda: b"\xff" * 64, _NONE)
    family.call("a length beyond the end", lambda: tag(1, BYTES) + varint(2**31 - 1) + b"x", _NONE)
    family.call("a length of 2^63", lambda: tag(1, BYTES) + varint(2**63) + b"x", _NONE)
    family.call("a varint of a thousand bytes", lambda: tag(7, 0) + b"\x80" * 1000 + b"\x01", _NONE)
    family.call("a group that never ends", lambda: question(_HELLO) + tag(1000, GROUP), _NONE)
    family.call("a group's end without one", lambda: question(_HELLO) + tag(1000, GROUP_END), _NONE)
    family.call("wire type 7", lambda: question(_HELLO) + varint(1000 << 3 | 7), _NONE)
    family.call("field number 0", lambda: question(_HELLO) + b"\x00\x01", _NONE)
    family.call(
        "groups 100,000 deep", lambda: question(_HELLO) + tag(1000, GROUP) * 10**5 + tag(1000, GROUP_END) * 10**5, _NONE
    )
    family.call("invalid UTF-8", lambda: question(text(b"\xff\xfe\xc3")), _NONE)
    family.call("an overlong NUL", lambda: question(text(b"\xc0\x80")), _NONE)
    family.call("an overlong slash", lambda: question(text(b"\xe0\x80\xaf")), _NONE)
    family.call("a lone surrogate", lambda: question(text(b"\xed\xa0\x80")), _NONE)
    family.call("beyond Unicode", lambda: question(text(b"\xf7\xbf\xbf\xbf")), _NONE)
    family.call("half a character", lambda: question(text(b"caf\xc3")), _NONE)
    family.call("compressed as if it were text", lambda: b"\x1f\x8b\x08" + bytes(200), _NONE)
    return family


def _amplifying() -> Family:
    """A byte of the wire is a structure of fifty in memory."""
    family = Family("messages that grow")
    family.call("8 million empty parts", lambda: sub(1, sub(1, number(1, 2) + b"\x12\0" * (8 * 10**6))), _NONE)
    family.call("8 million empty messages", lambda: sub(1, b"\x0a\0" * (8 * 10**6)), _NONE)
    family.call("8 million chats", lambda: b"\x0a\0" * (8 * 10**6) + question(_HELLO), _NONE)
    family.call("30 million unknown fields", lambda: question(_HELLO) + number(15, 1) * (30 * 10**6 // 2), _NONE)
    family.call("8 million empty stop strings", lambda: question(_HELLO, after=sub(5, b"\x32\0" * (8 * 10**6))), _NONE)
    family.call("60 million packed stop tokens", lambda: question(_HELLO, after=sub(5, sub(13, bytes(60 * 10**6)))), _NONE)
    family.call("8 million prune budgets", lambda: question(_HELLO, after=sub(4, b"\x12\0" * (8 * 10**6))), _NONE)
    family.call("8 million images of a raw prompt", lambda: sub(2, sub(1, b"x") + b"\x12\0" * (8 * 10**6)), _NONE)
    family.call("over the largest message", lambda: question(text(b"x" * (64 * 2**20 + 1))), _TOO_LARGE)
    family.call("an unknown field of 60 MB", lambda: question(_HELLO, after=sub(1000, bytes(60 * 10**6))), ANSWERED)
    return family


def _odd() -> Family:
    family = Family("odd messages")
    family.call("nothing", bytes, refused("prompt"))
    family.call("two prompts, the last one counts", lambda: sub(2, sub(1, b"raw")) + question(_HELLO), ANSWERED)
    family.call("both kinds in one part", lambda: question(_HELLO + sub(2, b"")), refused("messages[0].parts[0].image"))
    family.call("a text twice", lambda: question(text(b"x" * 1000) + _HELLO), ANSWERED)
    family.call("a number where a text is wanted", lambda: question(number(1, 5)), refused("messages[0].parts[0]"))
    family.call("an overlong varint of 0", lambda: question(_HELLO) + b"\x38\x80\x80\x80\x80\x00", ANSWERED)
    family.call("role 2^31 - 1", lambda: sub(1, sub(1, number(1, 2**31 - 1) + sub(2, _HELLO))), refused("messages[0].role"))
    family.call("role -1", lambda: sub(1, sub(1, number(1, 2**64 - 1) + sub(2, _HELLO))), refused("messages[0].role"))
    family.call("role 0", lambda: sub(1, sub(1, sub(2, _HELLO))), refused("messages[0].role"))
    family.call("priority 2^31 - 1", lambda: question(_HELLO, after=number(7, 2**31 - 1)), refused("priority"))
    family.call("priority -2^31", lambda: question(_HELLO, after=number(7, 2**64 - 2**31)), refused("priority"))
    family.call("3,000 messages", lambda: sub(1, sub(1, number(1, 2) + sub(2, _HELLO)) * 3000), refused("messages"))
    family.call("3,000 parts", lambda: question(*[_HELLO] * 3000), refused("messages[0].parts"))
    family.call("1,000 images", lambda: question(*[sub(2, sub(1, b"x"))] * 1000), refused("messages"))
    family.call("a method that is not there", bytes, _UNKNOWN, method="/vscan.v1.Decoder/Nothing")
    family.call("a service that is not there", bytes, _UNKNOWN, method="/a.B/C")
    family.call("a path that climbs", bytes, _UNKNOWN, method="/../../etc/passwd")
    family.call("an image for Describe", lambda: sub(1, file_of("PNG")), ANSWERED, method=DESCRIBE)
    return family


def _encoder() -> Family:
    family = Family("messages to the encoder")
    to_encoder = partial(family.call, target=Target.ENCODER, method=ENCODE)
    to_encoder("0xff", lambda: b"\xff" * 64, _NONE)
    to_encoder("a decoder's question", lambda: question(_HELLO), refused("image"))
    to_encoder("nothing", bytes, refused("image"))
    to_encoder("8 million frames", lambda: sub(4, sub(2, b"\x0a\0" * (8 * 10**6))), _NONE)
    to_encoder("8 million budgets", lambda: sub(2, b"\x12\0" * (8 * 10**6)), _NONE)
    for size in (0, 1, 31, 33, 2**20):
        to_encoder(f"a digest of {size:,} bytes", partial(_digest, size), refused("image.sha256"))
    bad = struct.pack("<d", float("nan")), struct.pack("<d", float("inf")), struct.pack("<d", -1.0), struct.pack("<d", 1e308)
    for name, value in zip(("NaN", "inf", "-1", "1e308"), bad, strict=True):
        ratio = sub(2, sub(2, tag(2, FIXED64) + value))
        to_encoder(f"a ratio of {name}", partial(_with_image, ratio), refused("reduction.budget.ratio"))
    to_encoder("2^32 - 1 tokens", lambda: _with_image(sub(2, sub(2, number(4, 2**32 - 1)))), ANSWERED)
    to_encoder("2^32 - 1 tokens a tile", lambda: _with_image(sub(2, sub(2, number(1, 2**32 - 1)))), _TOKENS)
    to_encoder("a method of 2^31 - 1", lambda: _with_image(sub(2, number(1, 2**31 - 1))), refused("reduction.method"))
    to_encoder("reply form 99", lambda: _with_image(number(3, 99)), refused("reply_form"))
    to_encoder("a fixed32 where a number is wanted", lambda: _with_image(tag(3, FIXED32) + b"\1\0\0\0"), ANSWERED)
    to_encoder("an image and a video", lambda: _with_image(sub(4, sub(1, b"x"))), refused("video"))
    to_encoder(
        "2^32 - 1 frames wanted", lambda: sub(4, sub(1, b"x") + sub(4, number(1, 2**32 - 1))), refused("video.sampling.frames")
    )
    look_up = partial(family.call, target=Target.ENCODER, method=LOOKUP)
    look_up("no digest", bytes, refused("sha256"))
    look_up("a million digests", lambda: sub(1, bytes(32)) * 10**6, _NONE)
    look_up("10,000 digests", lambda: encoder_pb2.LookupRequest(sha256=[bytes(32)] * 10_000), refused("sha256"))
    look_up("a digest of 60 MB", lambda: encoder_pb2.LookupRequest(sha256=[bytes(60 * 10**6)]), refused("sha256[0]"))
    family.call(
        "a decoder's call",
        lambda: question(_HELLO),
        refused(None, StatusCode.UNIMPLEMENTED),
        target=Target.ENCODER,
        method=GENERATE,
    )
    return family


_TOKENS = refused("reduction.budget.tokens_per_tile")


def _digest(size: int) -> bytes:
    return sub(1, sub(2, bytes(size)))


def _with_image(after: bytes) -> bytes:
    return sub(1, sub(1, file_of("PNG"))) + after
