"""Tensors, visual tokens, cache entries and error details: read as a value, or refused; never believed half."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.support.visual_values import key, make_tokens
from tests.unit.fuzz import fuzzed, well_told
from tests.unit.fuzz.mutations import mutated
from vscan.cache.body import BodyCodec, Encoding, EntryBody, read_body
from vscan.cache.entry import EntrySeal, Flaw
from vscan.errors import InvalidArgument, VScanError
from vscan.rpc.error_details import error_from_rpc, to_status
from vscan.tensors import tensor_from_proto
from vscan.v1 import tensor_pb2, visual_tokens_pb2
from vscan.visual_tokens import VisualTokens

KEY = key("fuzz")
CODECS = [BodyCodec(), BodyCodec(zstd_level=3), BodyCodec(float8=True), BodyCodec(zstd_level=3, float8=True)]
BODIES = [codec.settle(make_tokens(seed, kept=3, columns=4))[1] for seed, codec in enumerate(CODECS)]
ENTRIES = [EntrySeal().seal(KEY, body) for body in BODIES]
SIZES = st.integers(0, 2**32 - 1) | st.integers(0, 4)


def check(value: VisualTokens) -> None:
    """What everyone relies on."""
    kept = value.kept_indices.tolist()
    assert value.tokens.shape[0] == len(kept) == len(value.picked_by) > 0
    assert kept == sorted(set(kept))
    assert kept[-1] < value.unreduced_count == sum(tile.rows * tile.columns for tile in value.tiles)
    assert value.merged_into is None or int(value.merged_into.max()) < len(kept)


@given(st.lists(SIZES, max_size=6), st.integers(0, 5), st.binary(max_size=64))
@fuzzed
def test_a_tensor_has_its_shape_or_is_refused(shape: list[int], dtype: int, data: bytes) -> None:
    message = tensor_pb2.Tensor(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]
    try:
        tensor = tensor_from_proto(message)
    except InvalidArgument:
        return
    assert list(tensor.shape) == shape
    assert tensor.numel() * tensor.element_size() == len(data)


@given(mutated([bytes(body.data) for body in BODIES]), st.sampled_from(range(4)))
@fuzzed
def test_a_body_is_a_value_or_is_refused(data: bytes, encoding: int) -> None:
    try:
        value = read_body(EntryBody(data, Encoding(encoding)))
    except InvalidArgument as error:
        well_told(error, "")
    else:
        check(value)


@given(mutated([make_tokens(seed, kept=3, columns=4).to_bytes() for seed in range(4)]).map(zstandard.compress))
@fuzzed
def test_what_was_packed_after_it_was_spoilt_is_a_value_or_is_refused(data: bytes) -> None:
    for encoding in (Encoding.ZSTD, Encoding.ZSTD | Encoding.FLOAT8):
        try:
            check(read_body(EntryBody(data, encoding)))
        except InvalidArgument:
            continue


@given(mutated(ENTRIES))
@fuzzed
def test_an_entry_that_was_changed_is_never_opened(data: bytes) -> None:
    opened = EntrySeal().open(KEY, data)
    assert isinstance(opened, Flaw) or data in ENTRIES
    assert isinstance(EntrySeal(b"another secret, 24 bytes").open(KEY, data), Flaw)


@st.composite
def messages(draw: Any) -> visual_tokens_pb2.VisualTokens:
    """Right in their types, wrong in most else."""
    numbers = st.lists(st.integers(0, 6) | SIZES, max_size=6)
    rows, width = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    data = draw(st.binary(min_size=4 * rows * width, max_size=4 * rows * width))
    seconds = draw(st.lists(st.floats(), max_size=3))
    tiles = draw(st.lists(st.tuples(SIZES, SIZES, SIZES), max_size=3))
    return visual_tokens_pb2.VisualTokens(
        tokens=tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[rows, width], data=data),
        kept_indices=draw(numbers),
        picked_by=draw(st.lists(st.integers(0, 99), max_size=6)),
        merged_into=draw(numbers),
        tiles=[visual_tokens_pb2.Tile(rows=high, columns=wide, kept_count=kept) for high, wide, kept in tiles],
        unreduced_count=draw(SIZES),
        frames=visual_tokens_pb2.SampledFrames(seconds=seconds, duration_seconds=draw(st.floats())),
    )


@given(messages())
@fuzzed
def test_a_message_is_a_value_or_is_refused(message: visual_tokens_pb2.VisualTokens) -> None:
    try:
        value = VisualTokens.from_proto(message)
    except InvalidArgument as error:
        well_told(error, "visual_tokens")
    else:
        check(value)
        assert torch.equal(VisualTokens.from_bytes(value.to_bytes()).kept_indices, value.kept_indices)


class _Failed(Exception):
    """What a stub raises, as far as it is read."""

    def __init__(self, status: Any, trailer: bytes) -> None:
        self._status, self._trailer = status, trailer

    def code(self) -> Any:
        return self._status

    def details(self) -> str:
        return "text"

    def trailing_metadata(self) -> Iterator[tuple[str, bytes]]:
        return iter([("grpc-status-details-bin", self._trailer)])


@given(mutated([to_status(InvalidArgument("field", "problem", limit="5")), to_status(VScanError("text"))]) | st.binary())
@fuzzed
def test_any_trailer_is_a_typed_error(trailer: bytes) -> None:
    error = error_from_rpc(_Failed(InvalidArgument.status, trailer))  # type: ignore[arg-type]
    assert isinstance(error, VScanError)
    assert len(str(error)) < 10_000
