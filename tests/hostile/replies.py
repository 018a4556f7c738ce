"""What an encoder that is not to be trusted may answer, and what may lie in Redis under a good name."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import torch
import zstandard
from grpc import StatusCode

from tests.hostile.case import ANSWERED, Case, EntryCase, Expected, ReplyCase, refused
from vscan.cache.body import Encoding, EntryBody
from vscan.cache.entry import HEADER_BYTES, EntrySeal
from vscan.tensors import tensor_from_proto, write_tensor
from vscan.v1 import encoder_pb2, tensor_pb2, visual_tokens_pb2

Reply = encoder_pb2.EncodeResponse
_UNUSABLE = Expected((StatusCode.INTERNAL,))
_CHANGED = Expected((StatusCode.UNAVAILABLE,))
_MOST = 2**32 - 1


def reply_cases() -> list[Case]:
    """All of an encoder's."""
    return [
        ReplyCase(family="encoder replies", name=name, spoil=spoil, expected=_OTHERWISE.get(name, _UNUSABLE))
        for name, spoil in REPLIES.items()
    ]


def entry_cases() -> list[Case]:
    """All of Redis's: whatever lies there, the answer is the undisturbed one."""
    return [
        EntryCase(family="cache entries", name=name, spoil=spoil, expected=_PLAUSIBLE.get(name, ANSWERED))
        for name, spoil in ENTRIES.items()
    ]


def _set_elements(value: float) -> Callable[[Reply], None]:
    def spoil(reply: Reply) -> None:
        tokens = tensor_from_proto(reply.visual_tokens.tokens).clone()
        tokens[0, 0] = value
        write_tensor(tokens, reply.visual_tokens.tokens)

    return spoil


def _all_elements(value: float) -> Callable[[Reply], None]:
    def spoil(reply: Reply) -> None:
        write_tensor(torch.full_like(tensor_from_proto(reply.visual_tokens.tokens), value), reply.visual_tokens.tokens)

    return spoil


def _shape(*shape: int) -> Callable[[Reply], None]:
    def spoil(reply: Reply) -> None:
        reply.visual_tokens.tokens.shape[:] = shape

    return spoil


def _dtype(dtype: tensor_pb2.DType) -> Callable[[Reply], None]:
    def spoil(reply: Reply) -> None:
        reply.visual_tokens.tokens.dtype = dtype

    return spoil


def _tiles(*tiles: tuple[int, int, int], unreduced: int | None = None) -> Callable[[Reply], None]:
    def spoil(reply: Reply) -> None:
        value = reply.visual_tokens
        del value.tiles[:], value.merged_into[:]
        value.tiles.extend(visual_tokens_pb2.Tile(rows=rows, columns=columns, kept_count=kept) for rows, columns, kept in tiles)
        value.unreduced_count = unreduced if unreduced is not None else value.unreduced_count

    return spoil


def _large_grid(reply: Reply) -> None:
    """All that was kept, on a grid of 4,000 million places."""
    kept = reply.visual_tokens.tokens.shape[0]
    _tiles((65_535, 65_535, kept), unreduced=65_535**2)(reply)


def _many_tiles(reply: Reply) -> None:
    """A million tiles of nothing behind the real ones."""
    reply.visual_tokens.tiles.extend([visual_tokens_pb2.Tile()] * 10**6)


def _no_rows(reply: Reply) -> None:
    value = reply.visual_tokens
    write_tensor(torch.empty((0, value.tokens.shape[1])), value.tokens)
    del value.kept_indices[:], value.picked_by[:], value.merged_into[:], value.tiles[:]


def _descending(reply: Reply) -> None:
    reply.visual_tokens.kept_indices[:] = list(reversed(reply.visual_tokens.kept_indices))


def _beyond(reply: Reply) -> None:
    reply.visual_tokens.kept_indices[-1] = _MOST


def _merged_beyond(reply: Reply) -> None:
    reply.visual_tokens.merged_into[:] = [_MOST] * reply.visual_tokens.unreduced_count


def _frames(*seconds: float, duration: float) -> Callable[[Reply], None]:
    def spoil(reply: Reply) -> None:
        reply.visual_tokens.frames.seconds[:] = seconds
        reply.visual_tokens.frames.duration_seconds = duration

    return spoil


def _clear_tokens(reply: Reply) -> None:
    reply.ClearField("visual_tokens")


def _short_data(reply: Reply) -> None:
    reply.visual_tokens.tokens.data = reply.visual_tokens.tokens.data[:-1]


def _long_data(reply: Reply) -> None:
    reply.visual_tokens.tokens.data += bytes(50 * 2**20)


def _other_digest(reply: Reply) -> None:
    reply.report.sha256 = bytes(32)


def _no_digest(reply: Reply) -> None:
    reply.report.sha256 = b""


def _other_fingerprint(reply: Reply) -> None:
    reply.fingerprint = bytes(32)


def _long_fingerprint(reply: Reply) -> None:
    reply.fingerprint = bytes(10**7)


def _unknown_place(reply: Reply) -> None:
    reply.report.place = 2**31 - 1  # type: ignore[assignment]


def _timings(reply: Reply) -> None:
    reply.timings.vit_ms, reply.timings.total_ms, reply.timings.queue_ms = math.nan, math.inf, -1.0


def _as_a_video(reply: Reply) -> None:
    _frames(0.0, duration=1.0)(reply)


REPLIES: dict[str, Callable[[Reply], None]] = {
    "a NaN": _set_elements(math.nan),
    "an inf": _set_elements(math.inf),
    "a -inf": _set_elements(-math.inf),
    "nothing but NaN": _all_elements(math.nan),
    "the largest numbers": _all_elements(torch.finfo(torch.float32).max),
    "the least numbers": _all_elements(5e-45),
    "a shape that overflows": _shape(_MOST, _MOST, _MOST, _MOST),
    "a shape whose product is 0": _shape(_MOST, 0, _MOST, _MOST),
    "a shape of 2^32 - 1": _shape(_MOST),
    "another shape": _shape(1, 1),
    "no shape": _shape(),
    "a thousand dimensions": _shape(*[1] * 1000),
    "no element type": _dtype(tensor_pb2.DTYPE_UNSPECIFIED),
    "half the element type": _dtype(tensor_pb2.DTYPE_FLOAT16),
    "element type 99": _dtype(99),  # type: ignore[arg-type]
    "a byte short": _short_data,
    "50 MiB too long": _long_data,
    "no tokens": _clear_tokens,
    "no rows": _no_rows,
    "no tiles": _tiles(),
    "a tile of 2^32 - 1 squared": _tiles((_MOST, _MOST, _MOST)),
    "a grid of 4,000 million places": _large_grid,
    "a million empty tiles": _many_tiles,
    "places that go back": _descending,
    "a place beyond all": _beyond,
    "merged into what is not there": _merged_beyond,
    "frames of an image": _as_a_video,
    "frames at NaN": _frames(math.nan, duration=1.0),
    "frames at inf": _frames(0.0, duration=math.inf),
    "frames that go back": _frames(2.0, 1.0, duration=3.0),
    "another image's": _other_digest,
    "nobody's": _no_digest,
    "another encoder's": _other_fingerprint,
    "a fingerprint of 10 MB": _long_fingerprint,
    "from a place that is not known": _unknown_place,
    "timings of nonsense": _timings,
}
_OTHERWISE = {
    "the largest numbers": ANSWERED,
    "the least numbers": ANSWERED,
    "another encoder's": _CHANGED,
    "a fingerprint of 10 MB": _CHANGED,
    "from a place that is not known": ANSWERED,
    "timings of nonsense": ANSWERED,
    "a grid of 4,000 million places": refused("messages"),
}
# Of the right form throughout: without a secret nobody can tell who wrote it.
_PLAUSIBLE = {
    "sealed, on a grid of 4,000 million places": refused("messages"),
    "sealed, too narrow": _UNUSABLE,
}


def _sealed(key: bytes, data: bytes, encoding: int = Encoding.PLAIN) -> bytes:
    """As anyone can who may write to a Redis whose entries carry no secret."""
    return EntrySeal().seal(key, EntryBody(data, Encoding(encoding)))


def _zstd_bomb(entry: bytes, key: bytes, other: bytes) -> bytes:
    return _sealed(key, zstandard.compress(bytes(2**28), 19), Encoding.ZSTD)


def _zstd_lie(entry: bytes, key: bytes, other: bytes) -> bytes:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"
    return _sealed(key, frame, Encoding.ZSTD)


def _zstd_million(entry: bytes, key: bytes, other: bytes) -> bytes:
    frame = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + (2**30).to_bytes(8, "little") + b"\x01\x00\x00"
    return _sealed(key, frame, Encoding.ZSTD)


def _flipped_at(offset: int) -> Callable[[bytes, bytes, bytes], bytes]:
    def spoil(entry: bytes, key: bytes, other: bytes) -> bytes:
        return entry[:offset] + bytes([entry[offset] ^ 0x10]) + entry[offset + 1 :]

    return spoil


def _resealed(change: Callable[[visual_tokens_pb2.VisualTokens], None]) -> Callable[[bytes, bytes, bytes], bytes]:
    """Rightly sealed, by someone who knows the format."""

    def spoil(entry: bytes, key: bytes, other: bytes) -> bytes:
        value = visual_tokens_pb2.VisualTokens.FromString(entry[HEADER_BYTES:])
        change(value)
        return _sealed(key, value.SerializeToString())

    return spoil


def _with_nan(value: visual_tokens_pb2.VisualTokens) -> None:
    tokens = tensor_from_proto(value.tokens).clone()
    tokens[-1] = math.nan
    write_tensor(tokens, value.tokens)


def _narrow(value: visual_tokens_pb2.VisualTokens) -> None:
    write_tensor(tensor_from_proto(value.tokens)[:, :1].contiguous(), value.tokens)


def _huge_grid(value: visual_tokens_pb2.VisualTokens) -> None:
    kept = value.tokens.shape[0]
    del value.tiles[:], value.merged_into[:]
    value.tiles.add(rows=65_535, columns=65_535, kept_count=kept)
    value.unreduced_count = 65_535**2


ENTRIES: dict[str, Callable[[bytes, bytes, bytes], bytes]] = {
    "empty": lambda entry, key, other: b"",
    "a header cut off": lambda entry, key, other: entry[: HEADER_BYTES - 1],
    "a body cut off": lambda entry, key, other: entry[:-1],
    "a byte too many": lambda entry, key, other: entry + b"\0",
    "a bit of the magic turned": _flipped_at(0),
    "a bit of the encoding turned": _flipped_at(5),
    "a bit of the length turned": _flipped_at(9),
    "a bit of the key turned": _flipped_at(20),
    "a bit of the tag turned": _flipped_at(60),
    "a bit of the body turned": _flipped_at(HEADER_BYTES + 40),
    "another image's": lambda entry, key, other: other,
    "a foreign format": lambda entry, key, other: b"\x80\x04cposix\nsystem\n(S'true'\ntR." + entry,
    "a length of 2^63": lambda entry, key, other: entry[:8] + struct.pack(">Q", 2**63) + entry[16:],
    "64 MiB of zeros": lambda entry, key, other: bytes(2**26),
    "a sealed nothing": lambda entry, key, other: _sealed(key, b""),
    "a sealed nonsense": lambda entry, key, other: _sealed(key, b"\xff" * 999),
    "a sealed zstd frame of nonsense": lambda entry, key, other: _sealed(key, b"\xff" * 999, Encoding.ZSTD),
    "a zstd bomb of 256 MiB": _zstd_bomb,
    "a zstd frame that claims 2^40": _zstd_lie,
    "a zstd frame that claims 2^30": _zstd_million,
    "float8 of too little": lambda entry, key, other: _sealed(key, entry[HEADER_BYTES:], Encoding.FLOAT8),
    "sealed, with NaN": _resealed(_with_nan),
    "sealed, too narrow": _resealed(_narrow),
    "sealed, on a grid of 4,000 million places": _resealed(_huge_grid),
}
