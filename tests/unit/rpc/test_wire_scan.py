"""Fields are counted as the parser would find them, before it does, and with bounded work."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.wire_bytes import BYTES, number, question, sub, tag, text, varint
from vscan.errors import InvalidArgument
from vscan.rpc.settings import RpcSettings
from vscan.rpc.wire_scan import check_fields, may_exceed
from vscan.v1 import decoder_pb2 as pb

GENERATE = pb.GenerateRequest.DESCRIPTOR


def count(data: bytes) -> int:
    """The least limit that lets it pass."""
    for most in range(2000):
        try:
            check_fields(data, GENERATE, most)
        except InvalidArgument:
            continue
        return most
    raise AssertionError("more than 2000")


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (b"", 0),
        (number(7, 5), 1),
        (number(7, 2**64 - 1), 1),
        (sub(1, b""), 1),
        (sub(1, sub(1, b"\x12\0" * 100)), 102),
        (question(text(b"x" * 50)), 7),  # chat, message, role, part, text; sampling, max_new_tokens
        (sub(5, sub(13, bytes(40))), 2 + 40),  # packed: each byte may be a number
        (sub(5, sub(6, bytes(40))), 2),  # a text is one
        (sub(1000, sub(1, b"x") * 30), 1),  # what is not known is not looked into
        (tag(3, 3) + tag(3, 4), 2),
        (tag(3, 1) + bytes(8) + tag(3, 5) + bytes(4), 2),
        (tag(3, BYTES) + varint(2**40), 0),  # no message: the parser's to refuse
        (b"\x80" * 50, 0),
    ],
)
def test_fields_are_counted(data: bytes, fields: int) -> None:
    assert count(data) == fields


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_come_to_an_end(data: bytes) -> None:
    assert count(data) <= len(data)
    assert not may_exceed(data, len(data))


def test_what_is_over_the_limit_is_not_walked_through() -> None:
    class Watched(bytes):
        reads = 0

        def __getitem__(self, key):  # type: ignore[no-untyped-def]
            Watched.reads += 1
            return bytes.__getitem__(self, key)

    with pytest.raises(InvalidArgument, match=r"^request: too many fields, limit 1,000$"):
        check_fields(Watched(sub(1, sub(1, b"\x12\0" * 10**6))), GENERATE, 1000)
    assert Watched.reads < 4000


def test_the_largest_chat_of_the_default_limits_has_fewer_fields_than_the_default() -> None:
    message = pb.Message(role=pb.ROLE_USER, parts=[pb.Part(text="x" * 32)] * 64)
    chat = pb.GenerateRequest(chat=pb.Chat(messages=[message] * 64))
    assert may_exceed(chat.SerializeToString(), RpcSettings().max_message_fields)
    check_fields(chat.SerializeToString(), GENERATE, 8321)
    assert RpcSettings().max_message_fields > 8321
