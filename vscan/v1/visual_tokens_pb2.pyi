from vscan.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReductionMethod(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REDUCTION_METHOD_UNSPECIFIED: _ClassVar[ReductionMethod]
    REDUCTION_METHOD_VSCAN: _ClassVar[ReductionMethod]
    REDUCTION_METHOD_GLOBAL: _ClassVar[ReductionMethod]
    REDUCTION_METHOD_LOCAL: _ClassVar[ReductionMethod]
    REDUCTION_METHOD_RANDOM: _ClassVar[ReductionMethod]
    REDUCTION_METHOD_POOL: _ClassVar[ReductionMethod]
    REDUCTION_METHOD_NONE: _ClassVar[ReductionMethod]

class PickedBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PICKED_BY_UNSPECIFIED: _ClassVar[PickedBy]
    PICKED_BY_LOCAL: _ClassVar[PickedBy]
    PICKED_BY_GLOBAL: _ClassVar[PickedBy]
    PICKED_BY_RANDOM: _ClassVar[PickedBy]
    PICKED_BY_ALL: _ClassVar[PickedBy]
    PICKED_BY_POOL: _ClassVar[PickedBy]
    PICKED_BY_NEWLINE: _ClassVar[PickedBy]
    PICKED_BY_CLASS: _ClassVar[PickedBy]

class Place(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACE_UNSPECIFIED: _ClassVar[Place]
    PLACE_ENCODED: _ClassVar[Place]
    PLACE_MEMORY: _ClassVar[Place]
    PLACE_REDIS: _ClassVar[Place]
    PLACE_SHARED: _ClassVar[Place]
    PLACE_ENCODER_MEMORY: _ClassVar[Place]
REDUCTION_METHOD_UNSPECIFIED: ReductionMethod
REDUCTION_METHOD_VSCAN: ReductionMethod
REDUCTION_METHOD_GLOBAL: ReductionMethod
REDUCTION_METHOD_LOCAL: ReductionMethod
REDUCTION_METHOD_RANDOM: ReductionMethod
REDUCTION_METHOD_POOL: ReductionMethod
REDUCTION_METHOD_NONE: ReductionMethod
PICKED_BY_UNSPECIFIED: PickedBy
PICKED_BY_LOCAL: PickedBy
PICKED_BY_GLOBAL: PickedBy
PICKED_BY_RANDOM: PickedBy
PICKED_BY_ALL: PickedBy
PICKED_BY_POOL: PickedBy
PICKED_BY_NEWLINE: PickedBy
PICKED_BY_CLASS: PickedBy
PLACE_UNSPECIFIED: Place
PLACE_ENCODED: Place
PLACE_MEMORY: Place
PLACE_REDIS: Place
PLACE_SHARED: Place
PLACE_ENCODER_MEMORY: Place

class Image(_message.Message):
    __slots__ = ("data", "sha256")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    sha256: bytes
    def __init__(self, data: _Optional[bytes] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class FrameSampling(_message.Message):
    __slots__ = ("frames", "frames_per_second")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    frames: int
    frames_per_second: float
    def __init__(self, frames: _Optional[int] = ..., frames_per_second: _Optional[float] = ...) -> None: ...

class VideoFrames(_message.Message):
    __slots__ = ("images",)
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, images: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Video(_message.Message):
    __slots__ = ("data", "frames", "sha256", "sampling")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    frames: VideoFrames
    sha256: bytes
    sampling: FrameSampling
    def __init__(self, data: _Optional[bytes] = ..., frames: _Optional[_Union[VideoFrames, _Mapping]] = ..., sha256: _Optional[bytes] = ..., sampling: _Optional[_Union[FrameSampling, _Mapping]] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("tokens_per_tile", "ratio", "target_average", "total_tokens")
    TOKENS_PER_TILE_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    TARGET_AVERAGE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    tokens_per_tile: int
    ratio: float
    target_average: float
    total_tokens: int
    def __init__(self, tokens_per_tile: _Optional[int] = ..., ratio: _Optional[float] = ..., target_average: _Optional[float] = ..., total_tokens: _Optional[int] = ...) -> None: ...

class ReductionSpec(_message.Message):
    __slots__ = ("method", "budget", "local_share", "merge", "seed")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    LOCAL_SHARE_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    method: ReductionMethod
    budget: Budget
    local_share: float
    merge: bool
    seed: int
    def __init__(self, method: _Optional[_Union[ReductionMethod, str]] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., local_share: _Optional[float] = ..., merge: bool = ..., seed: _Optional[int] = ...) -> None: ...

class Area(_message.Message):
    __slots__ = ("left", "top", "right", "bottom")
    LEFT_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    RIGHT_FIELD_NUMBER: _ClassVar[int]
    BOTTOM_FIELD_NUMBER: _ClassVar[int]
    left: float
    top: float
    right: float
    bottom: float
    def __init__(self, left: _Optional[float] = ..., top: _Optional[float] = ..., right: _Optional[float] = ..., bottom: _Optional[float] = ...) -> None: ...

class Tile(_message.Message):
    __slots__ = ("rows", "columns", "kept_count", "area")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    KEPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    rows: int
    columns: int
    kept_count: int
    area: Area
    def __init__(self, rows: _Optional[int] = ..., columns: _Optional[int] = ..., kept_count: _Optional[int] = ..., area: _Optional[_Union[Area, _Mapping]] = ...) -> None: ...

class SampledFrames(_message.Message):
    __slots__ = ("seconds", "duration_seconds", "interval_seconds")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    DURATION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: _containers.RepeatedScalarFieldContainer[float]
    duration_seconds: float
    interval_seconds: float
    def __init__(self, seconds: _Optional[_Iterable[float]] = ..., duration_seconds: _Optional[float] = ..., interval_seconds: _Optional[float] = ...) -> None: ...

class VisualTokens(_message.Message):
    __slots__ = ("tokens", "kept_indices", "picked_by", "merged_into", "tiles", "unreduced_count", "frames")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEPT_INDICES_FIELD_NUMBER: _ClassVar[int]
    PICKED_BY_FIELD_NUMBER: _ClassVar[int]
    MERGED_INTO_FIELD_NUMBER: _ClassVar[int]
    TILES_FIELD_NUMBER: _ClassVar[int]
    UNREDUCED_COUNT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    tokens: _tensor_pb2.Tensor
    kept_indices: _containers.RepeatedScalarFieldContainer[int]
    picked_by: _containers.RepeatedScalarFieldContainer[PickedBy]
    merged_into: _containers.RepeatedScalarFieldContainer[int]
    tiles: _containers.RepeatedCompositeFieldContainer[Tile]
    unreduced_count: int
    frames: SampledFrames
    def __init__(self, tokens: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., kept_indices: _Optional[_Iterable[int]] = ..., picked_by: _Optional[_Iterable[_Union[PickedBy, str]]] = ..., merged_into: _Optional[_Iterable[int]] = ..., tiles: _Optional[_Iterable[_Union[Tile, _Mapping]]] = ..., unreduced_count: _Optional[int] = ..., frames: _Optional[_Union[SampledFrames, _Mapping]] = ...) -> None: ...

class ImageReport(_message.Message):
    __slots__ = ("sha256", "tokens_before", "tokens_after", "place", "kept", "frames")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    TOKENS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_AFTER_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    tokens_before: int
    tokens_after: int
    place: Place
    kept: VisualTokens
    frames: SampledFrames
    def __init__(self, sha256: _Optional[bytes] = ..., tokens_before: _Optional[int] = ..., tokens_after: _Optional[int] = ..., place: _Optional[_Union[Place, str]] = ..., kept: _Optional[_Union[VisualTokens, _Mapping]] = ..., frames: _Optional[_Union[SampledFrames, _Mapping]] = ...) -> None: ...
