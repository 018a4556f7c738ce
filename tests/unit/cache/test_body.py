"""What is written in any encoding comes back: the same, or as near as float8 can come."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.support.visual_values import make_tokens, same
from vscan.cache.body import KNOWN_ENCODINGS, BodyCodec, Encoding, EntryBody, read_body
from vscan.errors import InvalidArgument
from vscan.visual_tokens import VisualTokens

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# Half a step between neighbours of e4m3's three bits of mantissa, over the lower of them.
LARGEST_RELATIVE_ERROR = 2**-4


def value_of(rows: torch.Tensor) -> VisualTokens:
    """Visual tokens with these rows."""
    return replace(make_tokens(kept=len(rows), columns=max(6, len(rows))), tokens=rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [None, 1, 19])
def test_without_float8_every_bit_comes_back(dtype: torch.dtype, level: int | None) -> None:
    value = make_tokens(1, kept=4, hidden=64, dtype=dtype)
    settled, body = BodyCodec(zstd_level=level).settle(value)
    assert settled is value
    assert same(read_body(body), value)


def test_plain_is_what_releases_without_encodings_wrote() -> None:
    _, body = BodyCodec().settle(make_tokens())
    assert (body.encoding, body.data) == (Encoding.PLAIN, make_tokens().to_bytes())


def test_what_zstd_does_not_make_smaller_stays_as_it_is() -> None:
    noise = torch.randint(-(2**31), 2**31 - 1, (3, 64), dtype=torch.int64).to(torch.int32).view(torch.float32).nan_to_num(1.0)
    _, body = BodyCodec(zstd_level=3).settle(value_of(noise))
    assert body.encoding is Encoding.PLAIN
    zeros, packed = BodyCodec(zstd_level=3).settle(value_of(torch.zeros(3, 4096)))
    assert packed.encoding is Encoding.ZSTD
    assert len(packed.data) < zeros.nbytes / 100


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [None, 3])
def test_with_float8_cold_and_hot_are_the_same(dtype: torch.dtype, level: int | None) -> None:
    """Who has the tokens encoded gets what those get who find them."""
    value = make_tokens(2, kept=5, hidden=96, dtype=dtype)
    settled, body = BodyCodec(zstd_level=level, float8=True).settle(value)
    assert Encoding.FLOAT8 in body.encoding
    assert same(read_body(body), settled)
    assert settled.tokens.dtype is dtype
    assert not torch.equal(settled.tokens, value.tokens)
    assert len(body.data) < value.to_bytes().__len__() * (0.5 if dtype is torch.float32 else 0.8)


@given(st.lists(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=4, max_size=4), min_size=1, max_size=5))
def test_float8_is_near_in_every_row_however_large(rows: list[list[float]]) -> None:
    tokens = torch.tensor(rows, dtype=torch.float32)
    settled, _ = BodyCodec(float8=True).settle(value_of(tokens))
    largest = tokens.abs().amax(dim=1, keepdim=True)
    # Below 2^-6 of 448 the codes are evenly spaced, 2^-9 apart.
    near = LARGEST_RELATIVE_ERROR * tokens.abs() + largest * 2**-9 / 448 + 1e-38
    assert bool(((settled.tokens - tokens).abs() <= near * 1.001).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_float8_cannot_say_stays_as_it_is(bad: float) -> None:
    value = value_of(torch.tensor([[1.0, bad]]))
    settled, body = BodyCodec(float8=True).settle(value)
    assert body.encoding is Encoding.PLAIN
    assert same(settled, value)


def test_rows_of_zeros_stay_zeros() -> None:
    settled, _ = BodyCodec(float8=True).settle(value_of(torch.zeros(2, 8)))
    assert bool((settled.tokens == 0).all())


@given(st.binary(max_size=300), st.sampled_from(sorted(KNOWN_ENCODINGS)))
def test_arbitrary_bytes_are_refused_and_nothing_else_is_raised(junk: bytes, encoding: int) -> None:
    for data in (junk, zstandard.compress(junk)):
        with pytest.raises(InvalidArgument):
            read_body(EntryBody(data, Encoding(encoding)))


def test_a_body_is_nothing_in_another_encoding() -> None:
    for codec in (BodyCodec(), BodyCodec(zstd_level=3), BodyCodec(float8=True)):
        _, body = codec.settle(value_of(torch.ones(3, 512)))
        for other in set(map(Encoding, KNOWN_ENCODINGS)) - {body.encoding}:
            with pytest.raises(InvalidArgument):
                read_body(EntryBody(body.data, other))


@pytest.mark.parametrize("length", [2**40, None], ids=["a bomb", "of unknown length"])
def test_a_frame_that_may_unfold_without_bound_is_not_opened(length: int | None) -> None:
    if length is None:
        compressor = zstandard.ZstdCompressor(write_content_size=False)
        frame = compressor.compress(make_tokens().to_bytes())
    else:
        frame = b"\x28\xb5\x2f\xfd\xe0" + length.to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(InvalidArgument, match="length"):
        read_body(EntryBody(frame, Encoding.ZSTD))
