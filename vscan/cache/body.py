"""The body of a cache entry: visual tokens as they are, smaller, or smaller and not quite the same.

    encoding   0        VisualTokens.to_bytes()
               bit 0    the body is one zstd frame: nothing is lost
               bit 1    the tokens are float8: tensor data = T row scales (float32, little-endian), then T x hidden codes (e4m3)

The header of an entry names its encoding, so that a reader needs no setting. Both at once: float8 first, then zstd.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import torch
import zstandard
from google.protobuf.message import DecodeError

from vscan.errors import InvalidArgument
from vscan.tensors import dtype_from_proto, tensor_to_proto
from vscan.v1 import tensor_pb2
from vscan.v1 import visual_tokens_pb2 as pb
from vscan.visual_tokens import VisualTokens

# A frame says how long its content is before it is opened; a longer one would be a bomb. 64 frames of 24 x 24 tokens of
# 8,192 float32 are 1.2 GB; they are not worth a cache.
MAX_BODY_BYTES = 2**30
_FLOAT8 = torch.float8_e4m3fn
_FLOAT8_MAX = torch.finfo(_FLOAT8).max  # 448
_SCALE_BYTES = 4


class Encoding(IntFlag):
    """How a body is written; the numbers are the entry header's."""

    PLAIN = 0
    ZSTD = 1
    FLOAT8 = 2


KNOWN_ENCODINGS = frozenset(range(4))


@dataclass(frozen=True, slots=True)
class EntryBody:
    """The bytes of a body, and how to read them."""

    data: bytes | memoryview
    encoding: Encoding = Encoding.PLAIN


@dataclass(frozen=True, slots=True)
class BodyCodec:
    """How an encoder writes bodies. Reading needs none: `read_body`."""

    zstd_level: int | None = None  # None: not compressed
    float8: bool = False

    @property
    def is_lossless(self) -> bool:
        """Whether readers see the value that was given."""
        return not self.float8

    def settle(self, value: VisualTokens) -> tuple[VisualTokens, EntryBody]:
        """The value as every reader will see it, and its body.

        With float8 that is not the value given: who gets the tokens now and who finds them later must see the same.
        """
        message, encoding = value.to_proto(), Encoding.PLAIN
        if self.float8 and bool(torch.isfinite(value.tokens).all()):
            message.tokens.data = _to_float8(value.tokens)
            encoding = Encoding.FLOAT8
            value = _from_message(message, encoding)
        data = message.SerializeToString(deterministic=True)
        if self.zstd_level is not None:
            packed = zstandard.ZstdCompressor(level=self.zstd_level).compress(data)
            if len(packed) < len(data):
                return value, EntryBody(packed, encoding | Encoding.ZSTD)
        return value, EntryBody(data, encoding)


def read_body(body: EntryBody) -> VisualTokens:
    """The value of a body. Raises InvalidArgument on anything that `BodyCodec.settle` did not write."""
    data = _unpacked(body.data) if body.encoding & Encoding.ZSTD else bytes(body.data)
    if not body.encoding & Encoding.FLOAT8:
        return VisualTokens.from_bytes(data)
    try:
        return _from_message(pb.VisualTokens.FromString(data), body.encoding)
    except (DecodeError, ValueError, OverflowError, RuntimeError) as error:
        raise InvalidArgument("visual_tokens", "not a VisualTokens message") from error


def _unpacked(data: bytes | memoryview) -> bytes:
    try:
        if not 0 <= zstandard.frame_content_size(data) <= MAX_BODY_BYTES:
            raise InvalidArgument("visual_tokens", "a frame of unknown or excessive length")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise InvalidArgument("visual_tokens", "not a zstd frame") from error


def _from_message(message: pb.VisualTokens, encoding: Encoding) -> VisualTokens:
    if encoding & Encoding.FLOAT8:
        message = pb.VisualTokens.FromString(message.SerializeToString())
        message.tokens.CopyFrom(tensor_to_proto(_from_float8(message.tokens)))
    return VisualTokens.from_proto(message)


def _to_float8(tokens: torch.Tensor) -> bytes:
    """[T, hidden], finite → scales and codes. A row's largest element becomes 448, the largest number of e4m3."""
    rows = tokens.detach().to("cpu", torch.float32)
    scales = rows.abs().amax(dim=1, keepdim=True) / _FLOAT8_MAX
    codes = (rows / torch.where(scales > 0, scales, torch.ones_like(scales))).clamp(-_FLOAT8_MAX, _FLOAT8_MAX).to(_FLOAT8)
    return bytes(scales.numpy().tobytes() + codes.contiguous().view(torch.uint8).numpy().tobytes())


def _from_float8(message: tensor_pb2.Tensor) -> torch.Tensor:
    """[T, hidden] of the element type that the message names."""
    dtype = dtype_from_proto(message.dtype, "tokens.dtype")
    shape, data = tuple(message.shape), message.data
    if len(shape) != 2 or not shape[0] or not shape[1] or len(data) != shape[0] * (_SCALE_BYTES + shape[1]):
        raise InvalidArgument("tokens.data", f"{len(data)} bytes where the shape needs others")
    buffer = bytearray(data)
    scales = torch.frombuffer(buffer, dtype=torch.float32, count=shape[0]).reshape(-1, 1)
    codes = torch.frombuffer(buffer, dtype=torch.uint8, offset=shape[0] * _SCALE_BYTES).view(_FLOAT8).reshape(shape)
    return (codes.to(torch.float32) * scales).to(dtype)
