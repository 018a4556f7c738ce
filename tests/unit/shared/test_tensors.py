"""Tensors travel bit for bit; bytes that do not fit their description are refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vscan.errors import InvalidArgument
from vscan.tensors import DTYPE_NAMES, DTYPES, dtype_from_proto, dtype_to_proto, tensor_from_proto, tensor_to_proto
from vscan.v1 import tensor_pb2

SHAPES = st.lists(st.integers(0, 5), max_size=4)


def bits(tensor: torch.Tensor) -> bytes:
    raw: bytes = tensor.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()
    return raw


@given(SHAPES, st.sampled_from(sorted(DTYPES)), st.randoms(use_true_random=False))
def test_any_bits_of_any_shape_come_back(shape: list[int], dtype: str, random) -> None:  # type: ignore[no-untyped-def]
    size = math.prod(shape) * DTYPES[dtype].itemsize
    raw = bytearray(random.randbytes(size))  # NaNs with payloads, infinities and subnormals among them
    tensor = torch.frombuffer(raw, dtype=DTYPES[dtype]).reshape(shape) if size else torch.empty(shape, dtype=DTYPES[dtype])
    sent = tensor_to_proto(tensor).SerializeToString()
    received = tensor_from_proto(tensor_pb2.Tensor.FromString(sent))
    assert (received.dtype, list(received.shape), bits(received)) == (tensor.dtype, shape, bytes(raw))


def test_elements_are_little_endian_and_row_major() -> None:
    message = tensor_to_proto(torch.tensor([[1.0, 2.0], [-2.0, 0.5]], dtype=torch.bfloat16))
    assert (message.dtype, list(message.shape)) == (tensor_pb2.DTYPE_BFLOAT16, [2, 2])
    assert message.data.hex() == "803f004000c0003f"


@pytest.mark.parametrize(
    "view",
    [
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12.0).reshape(3, 4)[:, 1:3],
        torch.arange(3.0).expand(4, 3),
        torch.tensor(3.5),
        torch.empty(0, 7),
        torch.arange(4.0, requires_grad=True),
    ],
)
def test_views_scalars_and_empty_tensors_travel(view: torch.Tensor) -> None:
    received = tensor_from_proto(tensor_to_proto(view))
    assert torch.equal(received, view)
    assert received.shape == view.shape
    assert not received.requires_grad


def test_what_came_is_memory_of_its_own() -> None:
    message = tensor_to_proto(torch.zeros(4))
    tensor_from_proto(message).fill_(7)
    assert torch.equal(tensor_from_proto(message), torch.zeros(4))


@given(SHAPES, st.integers(0, 2000))
def test_a_length_that_does_not_fit_the_shape_is_refused(shape: list[int], length: int) -> None:
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=shape, data=bytes(length))
    if length == math.prod(shape) * 4:
        assert list(tensor_from_proto(message).shape) == shape
    else:
        with pytest.raises(InvalidArgument, match=r"^tokens\.data: "):
            tensor_from_proto(message, "tokens")


@given(st.lists(st.integers(0, 2**32 - 1), max_size=4))
def test_no_stated_shape_makes_it_reserve_memory(shape: list[int]) -> None:
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=shape, data=b"")
    try:
        elements = tensor_from_proto(message).numel()
    except InvalidArgument as error:
        elements, refused = 0, error.field
    else:
        refused = "nothing"
    assert (elements, refused) in ((0, "nothing"), (0, "tensor.data"), (0, "tensor.shape"))


def test_dimensions_whose_strides_overflow_are_refused() -> None:
    longest = 2**32 - 1
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[longest, longest, 0, longest])
    with pytest.raises(InvalidArgument, match=r"^tensor\.shape: "):
        tensor_from_proto(message)


def test_more_than_four_dimensions_are_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        tensor_from_proto(tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_FLOAT32, shape=[1] * 5, data=bytes(4)), "tokens")
    assert (caught.value.field, caught.value.limit) == ("tokens.shape", "4")


@pytest.mark.parametrize("number", [0, 99, -1])
def test_an_unknown_element_type_is_refused(number: int) -> None:
    with pytest.raises(InvalidArgument, match=r"^tensor\.dtype: "):
        tensor_from_proto(tensor_pb2.Tensor(dtype=number, shape=[1], data=bytes(4)))  # type: ignore[arg-type]


def test_every_element_type_of_the_contract_has_a_name_here() -> None:
    numbers = [number for number in tensor_pb2.DType.values() if number]
    names = {DTYPE_NAMES[dtype_from_proto(number)] for number in numbers}  # type: ignore[arg-type]
    assert names == set(DTYPES)
    assert sorted(int(dtype_to_proto(dtype)) for dtype in DTYPE_NAMES) == sorted(numbers)
