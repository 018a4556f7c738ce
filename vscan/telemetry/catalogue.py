"""What a reader of metrics, traces and logs may meet: values of labels, spans and where they lie, fields of a request's line.

`docs/metrics.md` is made of it, and tests compare it with what running services send.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vscan.telemetry import names

# Each attribute of a metric: all values that it may have, or in words what bounds their number.
LABELS: Mapping[str, tuple[str, ...] | str] = {
    names.ATTR_RPC_METHOD: "the methods that the service serves; calls of others are not counted",
    names.ATTR_STATUS: "gRPC's names: `OK`, `INVALID_ARGUMENT`, …",
    names.ATTR_REFUSAL: ("unauthenticated", "not_allowed", "rate", "concurrency"),
    names.ATTR_TENANT: "the tenants of the identities file; `default` without one",
    names.ATTR_STAGE: ("encoder", "prune"),
    names.ATTR_CACHE_TIER: ("memory", "redis"),
    names.ATTR_CACHE_RESULT: ("hit", "miss", "bad_entry", "ok", "error", "skipped", "refused"),
    names.ATTR_CACHE_FLAW: ("truncated", "foreign", "version", "length", "key", "tag", "body"),
    names.ATTR_REDIS_OPERATION: ("get", "exists", "set", "delete", "lease", "renew", "release"),
    names.ATTR_REDIS_ACCESS: ("read", "write"),
    names.ATTR_ERROR_TYPE: "the classes of errors in the code; `Cancelled` where the caller left",
    names.ATTR_LEASE_OUTCOME: ("led", "waited", "taken_over", "alone", "lost"),
    names.ATTR_MEDIA: ("image", "video"),
    names.ATTR_PLACE: ("encoded", "memory", "redis", "shared", "encoder_memory"),
    names.ATTR_SEGMENT: "from 0; one more than there are pruning layers",
    names.ATTR_PAGE_STATE: ("held", "idle", "free"),
    names.ATTR_GEN_AI_OPERATION: ("chat", "text_completion"),
    names.ATTR_GEN_AI_PROVIDER: (names.PROVIDER,),
    names.ATTR_GEN_AI_REQUEST_MODEL: "the name of the one model that is served (`MODEL_ALIAS`, or its checkpoint's)",
    names.ATTR_GEN_AI_TOKEN_TYPE: ("input", "output"),
}


@dataclass(frozen=True, slots=True)
class Span:
    """A span: who makes it, below which others (gRPC's own lie between), what it says, and which attributes it may have."""

    name: str
    by: str
    parents: tuple[str, ...]  # none: a root, or right below a call
    says: str
    attributes: tuple[str, ...] = ()


_REDIS = (names.ATTR_DB_SYSTEM, names.ATTR_CACHE_RESULT, names.ATTR_ERROR_TYPE)
_MEDIA = (names.ATTR_IMAGES, names.ATTR_VIDEOS)
_ENDED = (names.ATTR_GEN_AI_INPUT_TOKENS, names.ATTR_GEN_AI_OUTPUT_TOKENS, names.ATTR_GEN_AI_FINISH_REASONS)
_COUNTS = (names.ATTR_TOKENS_BEFORE, names.ATTR_TOKENS_AFTER)

SPANS: tuple[Span, ...] = (
    Span(
        names.SPAN_ASK,
        "SDK",
        (),
        "One question, retries included",
        (
            *_MEDIA,
            names.ATTR_REQUEST_ID,
            names.ATTR_PLACES,
            *_ENDED,
            names.ATTR_TIME_TO_FIRST_TOKEN_MS,
            names.ATTR_ATTEMPT,
            names.ATTR_SERVER_ADDRESS,
            names.ATTR_SERVER_PORT,
            names.ATTR_ERROR_TYPE,
        ),
    ),
    Span(
        names.SPAN_GENERATE,
        "decoder",
        (names.SPAN_ASK,),
        "One `Generate` call",
        (
            names.ATTR_GEN_AI_OPERATION,
            names.ATTR_GEN_AI_PROVIDER,
            names.ATTR_GEN_AI_REQUEST_MODEL,
            names.ATTR_GEN_AI_RESPONSE_ID,
            names.ATTR_GEN_AI_MAX_TOKENS,
            names.ATTR_GEN_AI_TEMPERATURE,
            names.ATTR_GEN_AI_TOP_P,
            names.ATTR_GEN_AI_TOP_K,
            names.ATTR_GEN_AI_SEED,
            names.ATTR_GEN_AI_CHOICES,
            *_ENDED,
            *_MEDIA,
            names.ATTR_REQUEST_ID,
            names.ATTR_TENANT,
            names.ATTR_PLACES,
            names.ATTR_VISUAL_TOKENS,
            names.ATTR_TIME_TO_FIRST_TOKEN_MS,
            names.ATTR_ERROR_TYPE,
        ),
    ),
    Span(
        names.SPAN_RESOLVE_IMAGES,
        "decoder",
        (names.SPAN_GENERATE,),
        "Every image's tokens, from wherever they are",
        (*_MEDIA, names.ATTR_PLACES),
    ),
    Span(
        names.SPAN_REDIS_GET,
        "both",
        (names.SPAN_RESOLVE_IMAGES, names.SPAN_ENCODE),
        "One read of the shared cache",
        (*_REDIS, names.ATTR_CACHE_ENTRIES, names.ATTR_CACHE_HIT, names.ATTR_CACHE_BYTES),
    ),
    Span(
        names.SPAN_REDIS_DELETE,
        "both",
        (names.SPAN_RESOLVE_IMAGES, names.SPAN_ENCODE),
        "Removing entries that are not to be trusted",
        _REDIS,
    ),
    Span(
        names.SPAN_REDIS_EXISTS,
        "encoder",
        (),
        "Which digests of a `Lookup` call have entries",
        (*_REDIS, names.ATTR_CACHE_ENTRIES),
    ),
    Span(
        names.SPAN_ENCODE,
        "encoder",
        (names.SPAN_RESOLVE_IMAGES,),
        "One `Encode` call",
        (names.ATTR_IMAGE_BYTES, names.ATTR_IMAGE_DIGEST, names.ATTR_PLACE, *_COUNTS, names.ATTR_VIDEO_FRAMES),
    ),
    Span(
        names.SPAN_REDIS_LEASE,
        "encoder",
        (names.SPAN_ENCODE,),
        "A replica's turn at encoding an image, the wait for another's included",
        (*_REDIS, names.ATTR_LEASE_OUTCOME, names.ATTR_LEASE_POLLS),
    ),
    Span(
        names.SPAN_DECODE_IMAGE,
        "encoder",
        (names.SPAN_ENCODE,),
        "File bytes to pixels, of an image or of a video's frames",
        (names.ATTR_IMAGE_WIDTH, names.ATTR_IMAGE_HEIGHT, names.ATTR_VIDEO_FRAMES),
    ),
    Span(names.SPAN_QUEUE, "encoder", (names.SPAN_ENCODE,), "From pixels to the start of a batch"),
    Span(
        names.SPAN_VIT,
        "encoder",
        (names.SPAN_ENCODE,),
        "The vision transformer over the whole batch; links to `vit_batch`",
        (names.ATTR_TILES,),
    ),
    Span(
        names.SPAN_REDUCE,
        "encoder",
        (names.SPAN_ENCODE,),
        "Scans, projector and merging of the whole batch; links to `vit_batch`",
        _COUNTS,
    ),
    Span(names.SPAN_CACHE_PUT, "encoder", (names.SPAN_ENCODE,), "Writing the caches", (names.ATTR_CACHE_BYTES,)),
    Span(
        names.SPAN_REDIS_SET,
        "encoder",
        (names.SPAN_CACHE_PUT,),
        "One write of the shared cache",
        (*_REDIS, names.ATTR_CACHE_BYTES),
    ),
    Span(
        names.SPAN_PREFILL,
        "decoder",
        (names.SPAN_GENERATE,),
        "The prompt through all layers, from its first step to its first token",
        (
            names.ATTR_SEGMENT_ROWS,
            names.ATTR_REUSED_ROWS,
            names.ATTR_QUEUE_MS,
            names.ATTR_PROMPT_TOKENS,
            names.ATTR_VISUAL_TOKENS,
        ),
    ),
    Span(
        names.SPAN_PRUNE,
        "decoder",
        (names.SPAN_PREFILL,),
        "One pruning layer: ranking and gathering",
        (names.ATTR_PRUNE_LAYER, names.ATTR_PRUNE_RATER, *_COUNTS),
    ),
    Span(names.SPAN_DECODE, "decoder", (names.SPAN_GENERATE,), "Every token after the first", (names.ATTR_COMPLETION_TOKENS,)),
    Span(
        names.SPAN_VIT_BATCH,
        "encoder",
        (),
        "One device pass, a trace of its own; links to the `encode` of each image in it",
        (names.ATTR_BATCH_IMAGES, names.ATTR_BATCH_TILES, names.ATTR_DEVICE),
    ),
)

# Fields of the line that ends a request: who writes them, and what they say. The first ones are in every line.
LOG_FIELDS: Mapping[str, tuple[str, str]] = {
    "time": ("both", "when, UTC"),
    "level": ("both", "`info`; `debug` of `Describe` that went well"),
    "logger": ("both", "`vscan.request`"),
    "message": ("both", "`request`"),
    "trace_id": ("both", "the trace, sampled or not; the same in the client, the decoder and the encoder"),
    "span_id": ("both", "the span of the call"),
    "method": ("both", "of the service: `Generate`, `Encode`, …"),
    "status": ("both", "gRPC's name of it"),
    "duration_ms": ("both", "from the call's arrival to its end"),
    "tenant": ("both", "of the caller"),
    "identity": ("both", "of the caller, by its name in the identities file"),
    "error": ("both", "the error's class"),
    "field": ("both", "the field of the request that is bad"),
    "request": ("decoder", "the request id, which the caller is told too"),
    "images": ("decoder", "images in the request"),
    "videos": ("decoder", "videos in the request"),
    "places": ("decoder", "where the tokens of each were found"),
    "prompt_tokens": ("decoder", "rows at the first layer, visual ones included"),
    "visual_tokens": ("decoder", "visual rows among them"),
    "visual_tokens_unreduced": ("decoder", "visual tokens before stage 1"),
    "samples": ("decoder", "answers asked for"),
    "time_to_first_token_ms": ("decoder", "from the call's arrival"),
    "completion_tokens": ("decoder", "tokens of all answers"),
    "reason": ("decoder", "why the first answer ended"),
    "image": ("encoder", "first 8 digits of its SHA-256"),
    "place": ("encoder", "where its tokens were found"),
    "tokens_before": ("encoder", "visual tokens before stage 1"),
    "tokens_after": ("encoder", "and after it"),
    "frames": ("encoder", "frames of a video that are looked at"),
}
