"""A content key changes with everything that the tokens depend on, and with nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscan.content_key import content_key, framed_sha256
from vscan.specs import DEFAULT_REDUCTION, Ratio, ReductionMethod, ReductionSpec

FIELDS: dict[str, Any] = {
    "codec_version": 1,
    "fingerprint": bytes(32),
    "reduction": DEFAULT_REDUCTION.filled_from(DEFAULT_REDUCTION),
    "dtype": "float32",
    "tenant": "default",
    "media_sha256": hashlib.sha256(b"image").digest(),
}


def test_it_is_written_down() -> None:
    # Another value here empties every cache in the world: raise CODEC_VERSION and say so in the changelog.
    assert content_key(**FIELDS).hex() == "cb858d9ed871e81d5cb85b78b941f51e07894d80f6296a552dcc2c1187ea0082"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codec_version", 2),
        ("fingerprint", b"\1" + bytes(31)),
        ("reduction", ReductionSpec(method=ReductionMethod.NONE)),
        ("reduction", ReductionSpec(budget=Ratio(0.5)).filled_from(DEFAULT_REDUCTION)),
        ("dtype", "bfloat16"),
        ("tenant", "other"),
        ("tenant", ""),
        ("media_sha256", hashlib.sha256(b"another").digest()),
    ],
)
def test_every_field_counts(name: str, value: object) -> None:
    assert content_key(**{**FIELDS, name: value}) != content_key(**FIELDS)
    assert len(content_key(**{**FIELDS, name: value})) == 32


@pytest.mark.parametrize("name", ["fingerprint", "media_sha256"])
@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_shortened_digests_are_refused(name: str, length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        content_key(**{**FIELDS, name: bytes(length)})


def test_an_unfilled_reduction_has_no_key() -> None:
    with pytest.raises(ValueError, match="filled"):
        content_key(**{**FIELDS, "reduction": ReductionSpec()})


@given(st.lists(st.binary(max_size=6), max_size=5), st.lists(st.binary(max_size=6), max_size=5))
def test_framing_keeps_lists_apart(one: list[bytes], other: list[bytes]) -> None:
    assert (framed_sha256(one) == framed_sha256(other)) == (one == other)


@given(st.binary(min_size=1, max_size=20), st.data())
def test_moving_a_border_changes_it(joined: bytes, data: st.DataObject) -> None:
    borders = st.integers(0, len(joined))
    one, other = data.draw(borders), data.draw(borders)
    same = framed_sha256([joined[:one], joined[one:]]) == framed_sha256([joined[:other], joined[other:]])
    assert same == (one == other)
