"""Tensors to and from wire bytes: raw little-endian elements, never pickle."""

from __future__ import annotations

import math

import torch

from vscan.errors import InvalidArgument
from vscan.v1 import tensor_pb2

MAX_DIMENSIONS = 4

_TO_WIRE = {
    torch.float32: tensor_pb2.DTYPE_FLOAT32,
    torch.float16: tensor_pb2.DTYPE_FLOAT16,
    torch.bfloat16: tensor_pb2.DTYPE_BFLOAT16,
}
_FROM_WIRE = {wire: dtype for dtype, wire in _TO_WIRE.items()}
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_to_proto(dtype: torch.dtype) -> tensor_pb2.DType:
    """The wire's name of an element type; only float32, float16 and bfloat16 travel."""
    return _TO_WIRE[dtype]


def dtype_from_proto(wire: tensor_pb2.DType, field: str = "dtype") -> torch.dtype:
    """The element type of a wire name; an unknown one is InvalidArgument."""
    if wire not in _FROM_WIRE:
        raise InvalidArgument(field, f"unknown element type {int(wire)}")
    return _FROM_WIRE[wire]


def tensor_to_proto(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    """A dense tensor on any device, as row-major little-endian bytes."""
    message = tensor_pb2.Tensor()
    write_tensor(tensor, message)
    return message


def write_tensor(tensor: torch.Tensor, message: tensor_pb2.Tensor) -> None:
    """The same into a message that is part of another: what is put together of parts is copied once more for each."""
    flat = tensor.detach().to("cpu").reshape(-1).contiguous().view(torch.uint8)
    message.dtype = dtype_to_proto(tensor.dtype)
    message.shape[:] = list(tensor.shape)
    message.data = flat.numpy().tobytes()


def tensor_from_proto(message: tensor_pb2.Tensor, field: str = "tensor") -> torch.Tensor:
    """The tensor, on the CPU, in memory of its own.

    Raises:
        InvalidArgument: unknown dtype, too many or too long dimensions, or a length that does not fit the shape.
    """
    dtype = dtype_from_proto(message.dtype, f"{field}.dtype")
    if len(message.shape) > MAX_DIMENSIONS:
        raise InvalidArgument(f"{field}.shape", f"{len(message.shape)} dimensions", limit=f"{MAX_DIMENSIONS}")
    expected = math.prod(message.shape) * dtype.itemsize
    if len(message.data) != expected:
        raise InvalidArgument(f"{field}.data", f"{len(message.data)} bytes where the shape needs {expected}")
    if not expected:
        return _empty(tuple(message.shape), dtype, field)
    return torch.frombuffer(bytearray(message.data), dtype=dtype).reshape(tuple(message.shape))


def _empty(shape: tuple[int, ...], dtype: torch.dtype, field: str) -> torch.Tensor:
    try:
        return torch.empty(shape, dtype=dtype)
    except RuntimeError as error:  # no elements, and yet strides that overflow: [2^32 - 1, 0, 2^32 - 1, 2^32 - 1]
        raise InvalidArgument(f"{field}.shape", "dimensions too long") from error
