from vscan.v1 import visual_tokens_pb2 as _visual_tokens_pb2
from vscan.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplyForm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLY_FORM_UNSPECIFIED: _ClassVar[ReplyForm]
    REPLY_FORM_INLINE: _ClassVar[ReplyForm]
    REPLY_FORM_REFERENCE: _ClassVar[ReplyForm]
REPLY_FORM_UNSPECIFIED: ReplyForm
REPLY_FORM_INLINE: ReplyForm
REPLY_FORM_REFERENCE: ReplyForm

class EncodeRequest(_message.Message):
    __slots__ = ("image", "reduction", "reply_form", "video")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    REPLY_FORM_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    image: _visual_tokens_pb2.Image
    reduction: _visual_tokens_pb2.ReductionSpec
    reply_form: ReplyForm
    video: _visual_tokens_pb2.Video
    def __init__(self, image: _Optional[_Union[_visual_tokens_pb2.Image, _Mapping]] = ..., reduction: _Optional[_Union[_visual_tokens_pb2.ReductionSpec, _Mapping]] = ..., reply_form: _Optional[_Union[ReplyForm, str]] = ..., video: _Optional[_Union[_visual_tokens_pb2.Video, _Mapping]] = ...) -> None: ...

class EncodeTimings(_message.Message):
    __slots__ = ("queue_ms", "decode_image_ms", "vit_ms", "reduce_ms", "cache_get_ms", "cache_put_ms", "total_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_IMAGE_MS_FIELD_NUMBER: _ClassVar[int]
    VIT_MS_FIELD_NUMBER: _ClassVar[int]
    REDUCE_MS_FIELD_NUMBER: _ClassVar[int]
    CACHE_GET_MS_FIELD_NUMBER: _ClassVar[int]
    CACHE_PUT_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    decode_image_ms: float
    vit_ms: float
    reduce_ms: float
    cache_get_ms: float
    cache_put_ms: float
    total_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., decode_image_ms: _Optional[float] = ..., vit_ms: _Optional[float] = ..., reduce_ms: _Optional[float] = ..., cache_get_ms: _Optional[float] = ..., cache_put_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class EncodeResponse(_message.Message):
    __slots__ = ("report", "visual_tokens", "content_key", "fingerprint", "timings")
    REPORT_FIELD_NUMBER: _ClassVar[int]
    VISUAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_KEY_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    report: _visual_tokens_pb2.ImageReport
    visual_tokens: _visual_tokens_pb2.VisualTokens
    content_key: bytes
    fingerprint: bytes
    timings: EncodeTimings
    def __init__(self, report: _Optional[_Union[_visual_tokens_pb2.ImageReport, _Mapping]] = ..., visual_tokens: _Optional[_Union[_visual_tokens_pb2.VisualTokens, _Mapping]] = ..., content_key: _Optional[bytes] = ..., fingerprint: _Optional[bytes] = ..., timings: _Optional[_Union[EncodeTimings, _Mapping]] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ("sha256", "reduction", "video_sampling")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    VIDEO_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    sha256: _containers.RepeatedScalarFieldContainer[bytes]
    reduction: _visual_tokens_pb2.ReductionSpec
    video_sampling: _visual_tokens_pb2.FrameSampling
    def __init__(self, sha256: _Optional[_Iterable[bytes]] = ..., reduction: _Optional[_Union[_visual_tokens_pb2.ReductionSpec, _Mapping]] = ..., video_sampling: _Optional[_Union[_visual_tokens_pb2.FrameSampling, _Mapping]] = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[LookupResult]
    def __init__(self, results: _Optional[_Iterable[_Union[LookupResult, _Mapping]]] = ...) -> None: ...

class LookupResult(_message.Message):
    __slots__ = ("sha256", "place")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    place: _visual_tokens_pb2.Place
    def __init__(self, sha256: _Optional[bytes] = ..., place: _Optional[_Union[_visual_tokens_pb2.Place, str]] = ...) -> None: ...

class DescribeEncoderRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EncoderLimits(_message.Message):
    __slots__ = ("max_image_bytes", "max_image_pixels", "min_image_side", "max_aspect_ratio", "max_lookup_digests", "max_queue", "max_video_bytes", "max_video_seconds", "max_video_frames", "max_video_frame_pixels")
    MAX_IMAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGE_PIXELS_FIELD_NUMBER: _ClassVar[int]
    MIN_IMAGE_SIDE_FIELD_NUMBER: _ClassVar[int]
    MAX_ASPECT_RATIO_FIELD_NUMBER: _ClassVar[int]
    MAX_LOOKUP_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    MAX_VIDEO_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_VIDEO_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_VIDEO_FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_VIDEO_FRAME_PIXELS_FIELD_NUMBER: _ClassVar[int]
    max_image_bytes: int
    max_image_pixels: int
    min_image_side: int
    max_aspect_ratio: float
    max_lookup_digests: int
    max_queue: int
    max_video_bytes: int
    max_video_seconds: float
    max_video_frames: int
    max_video_frame_pixels: int
    def __init__(self, max_image_bytes: _Optional[int] = ..., max_image_pixels: _Optional[int] = ..., min_image_side: _Optional[int] = ..., max_aspect_ratio: _Optional[float] = ..., max_lookup_digests: _Optional[int] = ..., max_queue: _Optional[int] = ..., max_video_bytes: _Optional[int] = ..., max_video_seconds: _Optional[float] = ..., max_video_frames: _Optional[int] = ..., max_video_frame_pixels: _Optional[int] = ...) -> None: ...

class EncoderDefaults(_message.Message):
    __slots__ = ("reduction", "shallow_layer", "deep_layer", "window", "skip_padding", "frame_sampling")
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    SHALLOW_LAYER_FIELD_NUMBER: _ClassVar[int]
    DEEP_LAYER_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    SKIP_PADDING_FIELD_NUMBER: _ClassVar[int]
    FRAME_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    reduction: _visual_tokens_pb2.ReductionSpec
    shallow_layer: int
    deep_layer: int
    window: int
    skip_padding: bool
    frame_sampling: _visual_tokens_pb2.FrameSampling
    def __init__(self, reduction: _Optional[_Union[_visual_tokens_pb2.ReductionSpec, _Mapping]] = ..., shallow_layer: _Optional[int] = ..., deep_layer: _Optional[int] = ..., window: _Optional[int] = ..., skip_padding: bool = ..., frame_sampling: _Optional[_Union[_visual_tokens_pb2.FrameSampling, _Mapping]] = ...) -> None: ...

class DescribeEncoderResponse(_message.Message):
    __slots__ = ("model", "family", "fingerprint", "pair_fingerprint", "hidden_size", "dtype", "tokens_per_tile", "codec_version", "limits", "defaults", "release", "speaks_for_tenants")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    PAIR_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_SIZE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_TILE_FIELD_NUMBER: _ClassVar[int]
    CODEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    SPEAKS_FOR_TENANTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    family: str
    fingerprint: bytes
    pair_fingerprint: bytes
    hidden_size: int
    dtype: _tensor_pb2.DType
    tokens_per_tile: int
    codec_version: int
    limits: EncoderLimits
    defaults: EncoderDefaults
    release: str
    speaks_for_tenants: bool
    def __init__(self, model: _Optional[str] = ..., family: _Optional[str] = ..., fingerprint: _Optional[bytes] = ..., pair_fingerprint: _Optional[bytes] = ..., hidden_size: _Optional[int] = ..., dtype: _Optional[_Union[_tensor_pb2.DType, str]] = ..., tokens_per_tile: _Optional[int] = ..., codec_version: _Optional[int] = ..., limits: _Optional[_Union[EncoderLimits, _Mapping]] = ..., defaults: _Optional[_Union[EncoderDefaults, _Mapping]] = ..., release: _Optional[str] = ..., speaks_for_tenants: bool = ...) -> None: ...
