from vscan.v1 import visual_tokens_pb2 as _visual_tokens_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]

class Rater(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RATER_UNSPECIFIED: _ClassVar[Rater]
    RATER_LAST_TOKEN: _ClassVar[Rater]
    RATER_TEXT_MEAN: _ClassVar[Rater]
    RATER_RANDOM: _ClassVar[Rater]
    RATER_DROP_ALL: _ClassVar[Rater]
    RATER_NONE: _ClassVar[Rater]

class PositionPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POSITION_POLICY_UNSPECIFIED: _ClassVar[PositionPolicy]
    POSITION_POLICY_RENUMBER: _ClassVar[PositionPolicy]
    POSITION_POLICY_KEEP: _ClassVar[PositionPolicy]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END_OF_SEQUENCE: _ClassVar[FinishReason]
    FINISH_REASON_STOP_STRING: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_STOP_TOKEN: _ClassVar[FinishReason]
    FINISH_REASON_CONSTRAINT: _ClassVar[FinishReason]
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
RATER_UNSPECIFIED: Rater
RATER_LAST_TOKEN: Rater
RATER_TEXT_MEAN: Rater
RATER_RANDOM: Rater
RATER_DROP_ALL: Rater
RATER_NONE: Rater
POSITION_POLICY_UNSPECIFIED: PositionPolicy
POSITION_POLICY_RENUMBER: PositionPolicy
POSITION_POLICY_KEEP: PositionPolicy
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END_OF_SEQUENCE: FinishReason
FINISH_REASON_STOP_STRING: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_STOP_TOKEN: FinishReason
FINISH_REASON_CONSTRAINT: FinishReason

class Part(_message.Message):
    __slots__ = ("text", "image", "video")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: _visual_tokens_pb2.Image
    video: _visual_tokens_pb2.Video
    def __init__(self, text: _Optional[str] = ..., image: _Optional[_Union[_visual_tokens_pb2.Image, _Mapping]] = ..., video: _Optional[_Union[_visual_tokens_pb2.Video, _Mapping]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "parts")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    role: Role
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class Chat(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class RawPrompt(_message.Message):
    __slots__ = ("text", "images", "videos")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    VIDEOS_FIELD_NUMBER: _ClassVar[int]
    text: str
    images: _containers.RepeatedCompositeFieldContainer[_visual_tokens_pb2.Image]
    videos: _containers.RepeatedCompositeFieldContainer[_visual_tokens_pb2.Video]
    def __init__(self, text: _Optional[str] = ..., images: _Optional[_Iterable[_Union[_visual_tokens_pb2.Image, _Mapping]]] = ..., videos: _Optional[_Iterable[_Union[_visual_tokens_pb2.Video, _Mapping]]] = ...) -> None: ...

class PruneBudget(_message.Message):
    __slots__ = ("tokens", "ratio")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    tokens: int
    ratio: float
    def __init__(self, tokens: _Optional[int] = ..., ratio: _Optional[float] = ...) -> None: ...

class PruneSpec(_message.Message):
    __slots__ = ("rater", "budgets", "seed", "positions")
    RATER_FIELD_NUMBER: _ClassVar[int]
    BUDGETS_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    rater: Rater
    budgets: _containers.RepeatedCompositeFieldContainer[PruneBudget]
    seed: int
    positions: PositionPolicy
    def __init__(self, rater: _Optional[_Union[Rater, str]] = ..., budgets: _Optional[_Iterable[_Union[PruneBudget, _Mapping]]] = ..., seed: _Optional[int] = ..., positions: _Optional[_Union[PositionPolicy, str]] = ...) -> None: ...

class SamplingParams(_message.Message):
    __slots__ = ("max_new_tokens", "temperature", "top_p", "top_k", "seed", "stop", "ignore_eos", "logprobs", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "stop_token_ids", "json_schema", "regex", "n")
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    JSON_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: _containers.RepeatedScalarFieldContainer[str]
    ignore_eos: bool
    logprobs: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop_token_ids: _containers.RepeatedScalarFieldContainer[int]
    json_schema: str
    regex: str
    n: int
    def __init__(self, max_new_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ..., stop: _Optional[_Iterable[str]] = ..., ignore_eos: bool = ..., logprobs: _Optional[int] = ..., min_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., stop_token_ids: _Optional[_Iterable[int]] = ..., json_schema: _Optional[str] = ..., regex: _Optional[str] = ..., n: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("chat", "raw", "reduction", "prune", "sampling", "report_kept", "priority")
    CHAT_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    REPORT_KEPT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    chat: Chat
    raw: RawPrompt
    reduction: _visual_tokens_pb2.ReductionSpec
    prune: PruneSpec
    sampling: SamplingParams
    report_kept: bool
    priority: int
    def __init__(self, chat: _Optional[_Union[Chat, _Mapping]] = ..., raw: _Optional[_Union[RawPrompt, _Mapping]] = ..., reduction: _Optional[_Union[_visual_tokens_pb2.ReductionSpec, _Mapping]] = ..., prune: _Optional[_Union[PruneSpec, _Mapping]] = ..., sampling: _Optional[_Union[SamplingParams, _Mapping]] = ..., report_kept: bool = ..., priority: _Optional[int] = ...) -> None: ...

class GenerateEvent(_message.Message):
    __slots__ = ("started", "delta", "finished")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    started: Started
    delta: TextDelta
    finished: Finished
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., delta: _Optional[_Union[TextDelta, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("request_id", "images", "prompt_tokens")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    images: _containers.RepeatedCompositeFieldContainer[_visual_tokens_pb2.ImageReport]
    prompt_tokens: int
    def __init__(self, request_id: _Optional[str] = ..., images: _Optional[_Iterable[_Union[_visual_tokens_pb2.ImageReport, _Mapping]]] = ..., prompt_tokens: _Optional[int] = ...) -> None: ...

class TokenLogprob(_message.Message):
    __slots__ = ("token_id", "logprob", "text")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    logprob: float
    text: bytes
    def __init__(self, token_id: _Optional[int] = ..., logprob: _Optional[float] = ..., text: _Optional[bytes] = ...) -> None: ...

class GeneratedToken(_message.Message):
    __slots__ = ("token_id", "logprob", "top", "text")
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    LOGPROB_FIELD_NUMBER: _ClassVar[int]
    TOP_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    token_id: int
    logprob: float
    top: _containers.RepeatedCompositeFieldContainer[TokenLogprob]
    text: bytes
    def __init__(self, token_id: _Optional[int] = ..., logprob: _Optional[float] = ..., top: _Optional[_Iterable[_Union[TokenLogprob, _Mapping]]] = ..., text: _Optional[bytes] = ...) -> None: ...

class TextDelta(_message.Message):
    __slots__ = ("text", "tokens", "sample", "reason")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    text: str
    tokens: _containers.RepeatedCompositeFieldContainer[GeneratedToken]
    sample: int
    reason: FinishReason
    def __init__(self, text: _Optional[str] = ..., tokens: _Optional[_Iterable[_Union[GeneratedToken, _Mapping]]] = ..., sample: _Optional[int] = ..., reason: _Optional[_Union[FinishReason, str]] = ...) -> None: ...

class PruneReport(_message.Message):
    __slots__ = ("layer", "tokens_before", "tokens_after", "survivors")
    LAYER_FIELD_NUMBER: _ClassVar[int]
    TOKENS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_AFTER_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    layer: int
    tokens_before: int
    tokens_after: int
    survivors: _containers.RepeatedCompositeFieldContainer[SurvivingTokens]
    def __init__(self, layer: _Optional[int] = ..., tokens_before: _Optional[int] = ..., tokens_after: _Optional[int] = ..., survivors: _Optional[_Iterable[_Union[SurvivingTokens, _Mapping]]] = ...) -> None: ...

class SurvivingTokens(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, rows: _Optional[_Iterable[int]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "visual_tokens", "visual_tokens_unreduced", "visual_tokens_average", "completion_tokens", "reused_prompt_tokens", "reused_prompt_tokens_average")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VISUAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    VISUAL_TOKENS_UNREDUCED_FIELD_NUMBER: _ClassVar[int]
    VISUAL_TOKENS_AVERAGE_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSED_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    REUSED_PROMPT_TOKENS_AVERAGE_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    visual_tokens: int
    visual_tokens_unreduced: int
    visual_tokens_average: float
    completion_tokens: int
    reused_prompt_tokens: int
    reused_prompt_tokens_average: float
    def __init__(self, prompt_tokens: _Optional[int] = ..., visual_tokens: _Optional[int] = ..., visual_tokens_unreduced: _Optional[int] = ..., visual_tokens_average: _Optional[float] = ..., completion_tokens: _Optional[int] = ..., reused_prompt_tokens: _Optional[int] = ..., reused_prompt_tokens_average: _Optional[float] = ...) -> None: ...

class GenerateTimings(_message.Message):
    __slots__ = ("resolve_images_ms", "queue_ms", "prefill_ms", "prune_ms", "decode_ms", "time_to_first_token_ms", "total_ms")
    RESOLVE_IMAGES_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_MS_FIELD_NUMBER: _ClassVar[int]
    PRUNE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_FIRST_TOKEN_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    resolve_images_ms: float
    queue_ms: float
    prefill_ms: float
    prune_ms: float
    decode_ms: float
    time_to_first_token_ms: float
    total_ms: float
    def __init__(self, resolve_images_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., prefill_ms: _Optional[float] = ..., prune_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., time_to_first_token_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class FinishedSample(_message.Message):
    __slots__ = ("sample", "reason", "completion_tokens")
    SAMPLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    sample: int
    reason: FinishReason
    completion_tokens: int
    def __init__(self, sample: _Optional[int] = ..., reason: _Optional[_Union[FinishReason, str]] = ..., completion_tokens: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("reason", "usage", "timings", "pruning", "seed", "samples")
    REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    PRUNING_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    reason: FinishReason
    usage: Usage
    timings: GenerateTimings
    pruning: _containers.RepeatedCompositeFieldContainer[PruneReport]
    seed: int
    samples: _containers.RepeatedCompositeFieldContainer[FinishedSample]
    def __init__(self, reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., timings: _Optional[_Union[GenerateTimings, _Mapping]] = ..., pruning: _Optional[_Iterable[_Union[PruneReport, _Mapping]]] = ..., seed: _Optional[int] = ..., samples: _Optional[_Iterable[_Union[FinishedSample, _Mapping]]] = ...) -> None: ...

class DescribeDecoderRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DecoderLimits(_message.Message):
    __slots__ = ("max_message_bytes", "max_images", "max_context_tokens", "max_new_tokens", "max_messages", "max_parts", "max_text_chars", "max_stop_strings", "max_stop_chars", "max_logprobs", "max_queue", "max_positions", "max_videos", "max_stop_token_ids", "max_constraint_chars", "max_samples")
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_IMAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    MAX_PARTS_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_STRINGS_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    MAX_POSITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_VIDEOS_FIELD_NUMBER: _ClassVar[int]
    MAX_STOP_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONSTRAINT_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    max_message_bytes: int
    max_images: int
    max_context_tokens: int
    max_new_tokens: int
    max_messages: int
    max_parts: int
    max_text_chars: int
    max_stop_strings: int
    max_stop_chars: int
    max_logprobs: int
    max_queue: int
    max_positions: int
    max_videos: int
    max_stop_token_ids: int
    max_constraint_chars: int
    max_samples: int
    def __init__(self, max_message_bytes: _Optional[int] = ..., max_images: _Optional[int] = ..., max_context_tokens: _Optional[int] = ..., max_new_tokens: _Optional[int] = ..., max_messages: _Optional[int] = ..., max_parts: _Optional[int] = ..., max_text_chars: _Optional[int] = ..., max_stop_strings: _Optional[int] = ..., max_stop_chars: _Optional[int] = ..., max_logprobs: _Optional[int] = ..., max_queue: _Optional[int] = ..., max_positions: _Optional[int] = ..., max_videos: _Optional[int] = ..., max_stop_token_ids: _Optional[int] = ..., max_constraint_chars: _Optional[int] = ..., max_samples: _Optional[int] = ...) -> None: ...

class DecoderDefaults(_message.Message):
    __slots__ = ("prune", "prune_layers", "sampling", "reduction")
    PRUNE_FIELD_NUMBER: _ClassVar[int]
    PRUNE_LAYERS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    REDUCTION_FIELD_NUMBER: _ClassVar[int]
    prune: PruneSpec
    prune_layers: _containers.RepeatedScalarFieldContainer[int]
    sampling: SamplingParams
    reduction: _visual_tokens_pb2.ReductionSpec
    def __init__(self, prune: _Optional[_Union[PruneSpec, _Mapping]] = ..., prune_layers: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[SamplingParams, _Mapping]] = ..., reduction: _Optional[_Union[_visual_tokens_pb2.ReductionSpec, _Mapping]] = ...) -> None: ...

class DescribeDecoderResponse(_message.Message):
    __slots__ = ("model", "family", "pair_fingerprint", "encoder_fingerprint", "layers", "raw_prompts", "limits", "defaults", "release")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    PAIR_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    RAW_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    model: str
    family: str
    pair_fingerprint: bytes
    encoder_fingerprint: bytes
    layers: int
    raw_prompts: bool
    limits: DecoderLimits
    defaults: DecoderDefaults
    release: str
    def __init__(self, model: _Optional[str] = ..., family: _Optional[str] = ..., pair_fingerprint: _Optional[bytes] = ..., encoder_fingerprint: _Optional[bytes] = ..., layers: _Optional[int] = ..., raw_prompts: bool = ..., limits: _Optional[_Union[DecoderLimits, _Mapping]] = ..., defaults: _Optional[_Union[DecoderDefaults, _Mapping]] = ..., release: _Optional[str] = ...) -> None: ...
