"""Visual tokens come out of their codec as they went in, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.visual_values import make_tokens
from vscan.errors import InvalidArgument
from vscan.v1 import visual_tokens_pb2 as pb
from vscan.visual_tokens import Area, PickedBy, Tile, VisualTokens

AREAS = [None, Area(0.0, 0.0, 1.0, 1.0), Area(-0.25, 0.1, 1.125, 0.9)]
VALUE = make_tokens(4, kept=3, columns=6)
BODY = VALUE.to_bytes()


@st.composite
def values(draw: st.DrawFn) -> VisualTokens:
    """One to three tiles, any of their places kept, merged or not."""
    grids = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3))
    kept: list[int] = []
    tiles: list[Tile] = []
    start = 0
    for rows, columns in grids:
        own = draw(st.sets(st.integers(0, rows * columns - 1), min_size=1))
        kept += [start + place for place in sorted(own)]
        tiles.append(Tile(rows, columns, len(own), draw(st.sampled_from(AREAS))))
        start += rows * columns
    merged = draw(st.none() | st.lists(st.integers(0, len(kept) - 1), min_size=start, max_size=start))
    dtype = draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    return VisualTokens(
        tokens=torch.randn(len(kept), draw(st.integers(1, 5)), generator=generator).to(dtype),
        kept_indices=torch.tensor(kept),
        picked_by=torch.tensor([draw(st.sampled_from(PickedBy)) for _ in kept], dtype=torch.uint8),
        merged_into=None if merged is None else torch.tensor(merged),
        tiles=tuple(tiles),
        unreduced_count=start,
    )


def equal(one: VisualTokens, other: VisualTokens) -> bool:
    merged = (one.merged_into, other.merged_into)
    return (
        torch.equal(one.tokens, other.tokens)
        and one.tokens.dtype == other.tokens.dtype
        and torch.equal(one.kept_indices, other.kept_indices)
        and torch.equal(one.picked_by, other.picked_by)
        and (merged == (None, None) or (None not in merged and torch.equal(*merged)))  # type: ignore[arg-type]
        and one.tiles == other.tiles
        and one.unreduced_count == other.unreduced_count
    )


@given(values())
def test_bytes_come_back(value: VisualTokens) -> None:
    assert equal(VisualTokens.from_bytes(value.to_bytes()), value)


@given(values())
def test_equal_values_have_equal_bytes(value: VisualTokens) -> None:
    assert VisualTokens.from_bytes(value.to_bytes()).to_bytes() == value.to_bytes()


@given(values())
@settings(deadline=None)  # tries every length
def test_every_shorter_body_is_refused(value: VisualTokens) -> None:
    body = value.to_bytes()
    for length in range(len(body)):
        with pytest.raises(InvalidArgument):
            VisualTokens.from_bytes(body[:length])


@given(st.integers(0, len(BODY) - 1), st.integers(0, 255))
def test_a_changed_byte_gives_a_value_or_is_refused(offset: int, byte: int) -> None:
    body = bytearray(BODY)
    body[offset] = byte
    try:
        value = VisualTokens.from_bytes(bytes(body))
    except InvalidArgument:
        return
    assert value.tokens.shape[0] == len(value.kept_indices) == len(value.picked_by)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(junk: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^visual_tokens"):  # valid ones are longer, or have no tokens and no dtype
        VisualTokens.from_bytes(junk)


def test_nan_and_infinity_are_kept_as_they_are() -> None:
    tokens = torch.tensor([[float("nan"), float("inf"), -0.0, 1e-40, 1, 2, 3, 4]])
    value = VisualTokens(tokens, torch.tensor([2]), torch.tensor([1], dtype=torch.uint8), None, (Tile(1, 4, 1),), 4)
    assert VisualTokens.from_bytes(value.to_bytes()).tokens.numpy().tobytes() == tokens.numpy().tobytes()


def test_a_value_has_tokens() -> None:
    nothing = torch.empty(0, dtype=torch.int64)
    with pytest.raises(InvalidArgument, match="tiles"):
        VisualTokens(torch.empty(0, 8), nothing, nothing.to(torch.uint8), None, (), 0)


def test_a_report_carries_places_without_tokens() -> None:
    report = VALUE.to_proto(with_tokens=False)
    assert not report.HasField("tokens")
    assert list(report.kept_indices) == VALUE.kept_indices.tolist()


def test_bytes_of_the_tensors_are_counted() -> None:
    assert VALUE.nbytes == 3 * 8 * 4 + 3 * 8 + 3 + 12 * 8
    assert VALUE.kept_count == 3


def _set(name: str, number: int) -> Callable[[pb.VisualTokens], None]:
    return lambda message: setattr(message, name, number)


def _list(name: str, entries: list[Any]) -> Callable[[pb.VisualTokens], None]:
    def spoil(message: pb.VisualTokens) -> None:
        del getattr(message, name)[:]
        getattr(message, name).extend(entries)

    return spoil


def _area(*edges: float) -> Callable[[pb.VisualTokens], None]:
    area = pb.Area(**dict(zip(("left", "top", "right", "bottom"), edges, strict=True)))
    return lambda message: message.tiles[0].area.CopyFrom(area)


def _shape(*shape: int) -> Callable[[pb.VisualTokens], None]:
    def spoil(message: pb.VisualTokens) -> None:
        del message.tokens.shape[:]
        message.tokens.shape.extend(shape)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        pytest.param(_shape(24), "tokens", id="one dimension"),
        pytest.param(_shape(3, 2, 4), "tokens", id="three dimensions"),
        pytest.param(_shape(3, 9), "tokens.data", id="a shape that the data does not fill"),
        pytest.param(_shape(4, 6), "kept_indices", id="more tokens than places"),
        pytest.param(lambda message: message.ClearField("tokens"), "tokens.dtype", id="no tokens"),
        pytest.param(_list("kept_indices", [0, 1]), "kept_indices", id="too few places"),
        pytest.param(_list("kept_indices", [0, 2, 2]), "kept_indices", id="a place twice"),
        pytest.param(_list("kept_indices", [0, 2, 1]), "kept_indices", id="places out of order"),
        pytest.param(_list("kept_indices", [0, 1, 12]), "kept_indices", id="a place beyond the last"),
        pytest.param(_list("picked_by", [1, 1]), "kept_indices", id="too few scans"),
        pytest.param(_list("merged_into", [0] * 11), "merged_into", id="too few merge targets"),
        pytest.param(_list("merged_into", [0] * 11 + [3]), "merged_into", id="a merge target beyond the last"),
        pytest.param(_list("tiles", [pb.Tile(rows=2, columns=6, kept_count=2)]), "tiles", id="tiles keep too few"),
        pytest.param(_list("tiles", [pb.Tile(rows=3, columns=6, kept_count=3)]), "tiles", id="tiles have too many places"),
        pytest.param(_list("tiles", [pb.Tile(rows=1, columns=6, kept_count=3)]), "tiles", id="tiles have too few places"),
        pytest.param(
            _list("tiles", [pb.Tile(rows=1, columns=2, kept_count=3), pb.Tile(rows=1, columns=10, kept_count=0)]),
            "tiles[0]",
            id="a tile keeps more than it has",
        ),
        pytest.param(
            _list("tiles", [pb.Tile(rows=1, columns=6, kept_count=2), pb.Tile(rows=1, columns=6, kept_count=1)]),
            "tiles[1]",
            id="a tile keeps another's place",
        ),
        pytest.param(_list("tiles", []), "tiles", id="no tiles"),
        pytest.param(_list("tiles", [pb.Tile()] * (2**16 + 1)), "tiles", id="more tiles than are believed"),
        pytest.param(_area(1.0, 0.0, 1.0, 1.0), "tiles[0].area", id="an area without width"),
        pytest.param(_area(0.0, 0.0, 1.0, float("nan")), "tiles[0].area", id="an area that ends nowhere"),
        pytest.param(_list("merged_into", [0] * (2**22 + 1)), "merged_into", id="more places than are believed"),
        pytest.param(_set("unreduced_count", 2), "tiles", id="fewer places than kept"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(spoil: Callable[[pb.VisualTokens], None], field: str) -> None:
    message = VALUE.to_proto()
    spoil(message)
    with pytest.raises(InvalidArgument) as caught:
        VisualTokens.from_proto(message)
    assert caught.value.field == f"visual_tokens.{field}"
    with pytest.raises(InvalidArgument):
        VisualTokens.from_bytes(message.SerializeToString())


@pytest.mark.parametrize("number", [77, 300, -5, 2**31 - 1])
def test_a_scan_that_a_newer_encoder_invented_is_not_known(number: int) -> None:
    message = VALUE.to_proto()
    message.picked_by[1] = number  # type: ignore[call-overload]
    assert VisualTokens.from_proto(message).picked_by.tolist() == [PickedBy.GLOBAL, PickedBy.UNSPECIFIED, PickedBy.GLOBAL]


def test_scans_have_the_contracts_numbers() -> None:
    contract = {value.name.removeprefix("PICKED_BY_"): value.number for value in pb.PickedBy.DESCRIPTOR.values}
    assert contract == {scan.name: scan.value for scan in PickedBy}
