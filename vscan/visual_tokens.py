"""The value that crosses from the encoder to the decoder, and its byte codec."""

from __future__ import annotations

import math
from collections.abc import Sized
from dataclasses import asdict, dataclass
from enum import IntEnum
from itertools import pairwise

import torch
from google.protobuf.message import DecodeError

from vscan.errors import InvalidArgument
from vscan.tensors import tensor_from_proto, write_tensor
from vscan.v1 import visual_tokens_pb2 as pb

# Raise it when the meaning of the bytes changes: it is part of the content key.
CODEC_VERSION = 1
# What is believed of a message: far more than a model makes of an image or a video, which has 24,576 tokens at most by default.
MAX_UNREDUCED = 2**22
MAX_TILES = 2**16


class PickedBy(IntEnum):
    """Which scan kept a token; the numbers are the wire's."""

    UNSPECIFIED = 0
    LOCAL = 1
    GLOBAL = 2
    RANDOM = 3
    ALL = 4
    POOL = 5
    NEWLINE = 6
    CLASS = 7


_SCANS = frozenset(PickedBy)


@dataclass(frozen=True, slots=True)
class Area:
    """A part of a picture in fractions of its width and height; what lies below 0 or over 1 is padding."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        edges = (self.left, self.top, self.right, self.bottom)
        if not all(map(math.isfinite, edges)) or self.left >= self.right or self.top >= self.bottom:
            raise InvalidArgument("area", "no area")


@dataclass(frozen=True, slots=True)
class Tile:
    """A grid of patches, and how many rows of the value are its own.

    One pass of the vision transformer, or several passes stitched together. `area` is where its grid lies on the picture, if it
    does and that is known.
    """

    rows: int
    columns: int
    kept_count: int
    area: Area | None = None

    def to_proto(self) -> pb.Tile:
        """The wire's form."""
        area = None if self.area is None else pb.Area(**asdict(self.area))
        return pb.Tile(rows=self.rows, columns=self.columns, kept_count=self.kept_count, area=area)


@dataclass(frozen=True, slots=True)
class SampledFrames:
    """What was looked at of a video: when each frame comes, and how long the video is, in seconds.

    A video of 8 seconds, 4 frames:    seconds  0 2 4 6        duration 8, interval 2
    """

    seconds: tuple[float, ...]
    duration_seconds: float

    def __post_init__(self) -> None:
        times = (0.0, *self.seconds, self.duration_seconds)
        if not self.seconds or not all(early <= late for early, late in pairwise(times)) or not math.isfinite(times[-1]):
            raise InvalidArgument("frames", "no ascending times within the video's length")

    @property
    def interval_seconds(self) -> float:
        """From one frame to the next where they are spread evenly: the length over their number."""
        return self.duration_seconds / len(self.seconds)

    def to_proto(self) -> pb.SampledFrames:
        """The wire's form."""
        return pb.SampledFrames(
            seconds=self.seconds, duration_seconds=self.duration_seconds, interval_seconds=self.interval_seconds
        )


@dataclass(frozen=True, slots=True, eq=False)
class VisualTokens:
    """The kept visual tokens of one image or video: T of N.

    A 2 x 3 tile reduced to 2 tokens, tokens 1 and 5 kept, the rest merged:

        unreduced     0 1 2 3 4 5        N = 6
        kept_indices    1       5        T = 2
        merged_into   0 0 1 0 1 1        row of `tokens` that holds each
    """

    tokens: torch.Tensor  # [T, hidden], floating
    kept_indices: torch.Tensor  # [T], int64 on the CPU, ascending, each below unreduced_count
    picked_by: torch.Tensor  # [T], uint8 on the CPU, values of PickedBy
    merged_into: torch.Tensor | None  # [N], int64 on the CPU, each below T; None if nothing was merged
    tiles: tuple[Tile, ...]
    unreduced_count: int
    frames: SampledFrames | None = None  # None: an image

    def __post_init__(self) -> None:
        _check(self)

    @property
    def kept_count(self) -> int:
        """T."""
        return self.tokens.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, in bytes."""
        parts = [self.tokens, self.kept_indices, self.picked_by, *([] if self.merged_into is None else [self.merged_into])]
        return sum(part.numel() * part.element_size() for part in parts)

    def to_proto(self, *, with_tokens: bool = True) -> pb.VisualTokens:
        """The wire's form; without the tokens themselves it is a report of places."""
        message = pb.VisualTokens()
        self.write_to(message, with_tokens=with_tokens)
        return message

    def write_to(self, message: pb.VisualTokens, *, with_tokens: bool = True) -> None:
        """The same into an empty message that may be part of another."""
        if with_tokens:
            write_tensor(self.tokens, message.tokens)
        message.kept_indices[:] = self.kept_indices.tolist()
        message.picked_by[:] = self.picked_by.tolist()
        if self.merged_into is not None:
            message.merged_into[:] = self.merged_into.tolist()
        message.tiles.extend(tile.to_proto() for tile in self.tiles)
        message.unreduced_count = self.unreduced_count
        if self.frames is not None:
            message.frames.CopyFrom(self.frames.to_proto())

    @classmethod
    def from_proto(cls, message: pb.VisualTokens, field: str = "visual_tokens") -> VisualTokens:
        """The value of a wire message. Raises InvalidArgument if its parts do not fit each other."""
        try:
            _check_lengths(message)
            return cls(
                tokens=tensor_from_proto(message.tokens, "tokens"),
                kept_indices=torch.tensor(list(message.kept_indices), dtype=torch.int64),
                picked_by=torch.tensor([_known_scan(scan) for scan in message.picked_by], dtype=torch.uint8),
                merged_into=torch.tensor(list(message.merged_into), dtype=torch.int64) if message.merged_into else None,
                tiles=tuple(_tile_from_proto(tile, index) for index, tile in enumerate(message.tiles)),
                unreduced_count=message.unreduced_count,
                frames=_frames_from_proto(message.frames) if message.HasField("frames") else None,
            )
        except InvalidArgument as error:
            raise error.below(field) from error

    def to_bytes(self) -> bytes:
        """The codec of version CODEC_VERSION: the wire message, serialized deterministically."""
        return self.to_proto().SerializeToString(deterministic=True)

    @classmethod
    def from_bytes(cls, data: bytes) -> VisualTokens:
        """Reads `to_bytes`. Raises InvalidArgument on anything that it did not write."""
        try:
            return cls.from_proto(pb.VisualTokens.FromString(data))
        except (DecodeError, ValueError, OverflowError, RuntimeError) as error:
            raise InvalidArgument("visual_tokens", "not a VisualTokens message") from error


def _check_lengths(message: pb.VisualTokens) -> None:
    """Before anything is made of them: a list of 64 million numbers takes gigabytes."""
    lists: dict[str, tuple[Sized, int]] = {
        "kept_indices": (message.kept_indices, MAX_UNREDUCED),
        "picked_by": (message.picked_by, MAX_UNREDUCED),
        "merged_into": (message.merged_into, MAX_UNREDUCED),
        "tiles": (message.tiles, MAX_TILES),
        "frames.seconds": (message.frames.seconds, MAX_TILES),
    }
    for field, (entries, most) in lists.items():
        if len(entries) > most:
            raise InvalidArgument(field, f"{len(entries):,} entries", limit=f"{most:,}")


def _frames_from_proto(message: pb.SampledFrames) -> SampledFrames:
    return SampledFrames(tuple(message.seconds), message.duration_seconds)


def _tile_from_proto(message: pb.Tile, index: int) -> Tile:
    if not message.HasField("area"):
        return Tile(message.rows, message.columns, message.kept_count)
    area = message.area
    try:
        return Tile(message.rows, message.columns, message.kept_count, Area(area.left, area.top, area.right, area.bottom))
    except InvalidArgument as error:
        raise error.below(f"tiles[{index}]") from error


def _known_scan(scan: int) -> int:
    """A scan that only a newer encoder knows is not known here, which is no reason to refuse its tokens."""
    return scan if scan in _SCANS else PickedBy.UNSPECIFIED


def _check(value: VisualTokens) -> None:
    if value.tokens.dim() != 2:
        raise InvalidArgument("tokens", f"{value.tokens.dim()} dimensions where 2 are needed")
    kept = value.tokens.shape[0]
    if value.kept_indices.shape != (kept,) or value.picked_by.shape != (kept,):
        raise InvalidArgument("kept_indices", f"{value.kept_indices.numel()} entries for {kept} tokens")
    if not kept or sum(tile.kept_count for tile in value.tiles) != kept:
        raise InvalidArgument("tiles", f"their tokens do not sum to {kept}, or there are none")
    if sum(tile.rows * tile.columns for tile in value.tiles) != value.unreduced_count:
        raise InvalidArgument("tiles", f"their places do not sum to the {value.unreduced_count} unreduced tokens")
    _check_places(value, kept)
    _check_tiles(value)


def _check_places(value: VisualTokens, kept: int) -> None:
    places = value.kept_indices.tolist()
    if any(a >= b for a, b in pairwise(places)) or (places and not 0 <= places[0] <= places[-1] < value.unreduced_count):
        raise InvalidArgument("kept_indices", f"not ascending places below {value.unreduced_count}")
    merged = value.merged_into
    if merged is None:
        return
    if merged.shape != (value.unreduced_count,) or (merged.numel() and not 0 <= int(merged.min()) <= int(merged.max()) < kept):
        raise InvalidArgument("merged_into", f"not {value.unreduced_count} rows below {kept}")


def _check_tiles(value: VisualTokens) -> None:
    """A tile keeps its own tokens, or none: what is left of a strip's parts may have no rows."""
    first_row = first_place = 0
    for index, tile in enumerate(value.tiles):
        end_row, end_place = first_row + tile.kept_count, first_place + tile.rows * tile.columns
        own = value.kept_indices[first_row:end_row]
        if tile.kept_count and not first_place <= int(own[0]) <= int(own[-1]) < end_place:
            raise InvalidArgument(f"tiles[{index}]", f"keeps places outside {first_place} to {end_place - 1}")
        first_row, first_place = end_row, end_place
