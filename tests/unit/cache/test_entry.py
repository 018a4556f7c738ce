"""A sealed entry is opened only as it was sealed: same bytes, same key, same secret."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.visual_values import body_of, key, make_tokens
from vscan.cache.body import Encoding, EntryBody
from vscan.cache.entry import HEADER_BYTES, MAGIC, EntrySeal, Flaw

KEY, OTHER_KEY = key("one"), key("other")
BODY = body_of(make_tokens())
SEALS = {"signed": EntrySeal(b"0123456789abcdef"), "unsigned": EntrySeal()}
# Where each field of the header lies, and what a changed byte in it must be called.
FIELDS = {
    "magic": (range(0, 4), Flaw.FOREIGN),
    "codec": (range(4, 8), Flaw.VERSION),
    "length": (range(8, 16), Flaw.LENGTH),
    "key": (range(16, 48), Flaw.KEY),
    "tag": (range(48, 80), Flaw.TAG),
    "body": (range(80, 80 + len(BODY.data)), Flaw.TAG),
}


@pytest.fixture(params=SEALS)
def seal(request: pytest.FixtureRequest) -> EntrySeal:
    return SEALS[request.param]


def flipped(entry: bytes, offset: int, bit: int = 0) -> bytes:
    changed = bytearray(entry)
    changed[offset] ^= 1 << bit
    return bytes(changed)


def test_opens_what_it_sealed(seal: EntrySeal) -> None:
    opened = seal.open(KEY, seal.seal(KEY, BODY))
    assert not isinstance(opened, Flaw)
    assert bytes(opened.data) == BODY.data


@given(body=st.binary(max_size=300), secret=st.none() | st.binary(min_size=16, max_size=64))
def test_any_body_comes_back(body: bytes, secret: bytes | None) -> None:
    seal = EntrySeal(secret)
    opened = seal.open(KEY, seal.seal(KEY, EntryBody(body)))
    assert not isinstance(opened, Flaw)
    assert (bytes(opened.data), opened.encoding) == (body, Encoding.PLAIN)


def test_the_fields_cover_the_whole_entry(seal: EntrySeal) -> None:
    covered = [offset for offsets, _ in FIELDS.values() for offset in offsets]
    assert covered == list(range(len(seal.seal(KEY, BODY))))


@pytest.mark.parametrize("field", FIELDS)
def test_every_changed_byte_is_found_and_named(seal: EntrySeal, field: str) -> None:
    entry = seal.seal(KEY, BODY)
    offsets, flaw = FIELDS[field]
    assert {seal.open(KEY, flipped(entry, offset, offset % 8)) for offset in offsets} == {flaw}


def test_every_shorter_entry_is_rejected(seal: EntrySeal) -> None:
    entry = seal.seal(KEY, BODY)
    for length in range(len(entry)):
        expected = Flaw.TRUNCATED if length < HEADER_BYTES else Flaw.LENGTH
        assert seal.open(KEY, entry[:length]) is expected


def test_a_longer_entry_is_rejected(seal: EntrySeal) -> None:
    assert seal.open(KEY, seal.seal(KEY, BODY) + b"\0") is Flaw.LENGTH


def test_an_entry_is_nothing_under_another_key(seal: EntrySeal) -> None:
    assert seal.open(OTHER_KEY, seal.seal(KEY, BODY)) is Flaw.KEY


def test_a_key_rewritten_to_fit_breaks_the_tag(seal: EntrySeal) -> None:
    entry = seal.seal(KEY, BODY)
    assert seal.open(OTHER_KEY, entry[:16] + OTHER_KEY + entry[48:]) is Flaw.TAG


def test_a_body_swapped_under_its_header_breaks_the_tag(seal: EntrySeal) -> None:
    other = body_of(make_tokens(seed=1))
    assert len(other.data) == len(BODY.data)
    assert seal.open(KEY, seal.seal(KEY, BODY)[:HEADER_BYTES] + other.data) is Flaw.TAG


def test_without_the_secret_nobody_can_seal() -> None:
    forged = SEALS["unsigned"].seal(KEY, BODY)
    recomputed = forged[:48] + hashlib.sha256(forged[:48] + BODY.data).digest() + BODY.data
    other_secret = EntrySeal(b"fedcba9876543210").seal(KEY, BODY)
    for entry in (forged, recomputed, other_secret):
        assert SEALS["signed"].open(KEY, entry) is Flaw.TAG


def test_a_signed_entry_is_not_taken_for_an_unsigned_one() -> None:
    assert SEALS["unsigned"].open(KEY, SEALS["signed"].seal(KEY, BODY)) is Flaw.TAG


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_rejected_without_raising(junk: bytes) -> None:
    for entry in (junk, MAGIC + junk):
        assert isinstance(SEALS["signed"].open(KEY, entry), Flaw)


def test_a_short_key_cannot_be_sealed() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        EntrySeal().seal(b"short", BODY)


def test_the_secret_is_not_shown() -> None:
    assert "0123456789abcdef" not in repr(SEALS["signed"])
