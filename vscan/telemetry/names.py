"""Every name of a span, an attribute and a metric, with its unit. Code elsewhere uses these and spells none itself.

Units stand in attribute names (`_ms`, `_bytes`, `_tokens`). A metric's unit is a field of its own, as OpenTelemetry wants it;
Prometheus shows it as a suffix (`ms` → `_milliseconds`, `By` → `_bytes`). Names that begin with `gen_ai.` are those of
OpenTelemetry's semantic conventions for generative AI, in their units (seconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TRACER = "vscan"  # the instrumentation scope of all spans and metrics made here

# ── Spans. Indentation shows the parent; gRPC client and server spans of the instrumentation library lie between processes.
SPAN_ASK = "ask"  # SDK: one question, retries included
SPAN_GENERATE = "generate"  # decoder: one Generate call
SPAN_RESOLVE_IMAGES = "resolve_images"  #   every image's tokens, from wherever they are
SPAN_REDIS_GET = "redis.get"  #     one read of the shared cache, by either service
SPAN_REDIS_SET = "redis.set"  #         one write of it, below cache_put
SPAN_REDIS_EXISTS = "redis.exists"  #     asking where entries are
SPAN_REDIS_DELETE = "redis.delete"  #     removing entries that are not to be trusted
SPAN_REDIS_LEASE = "redis.lease"  #       a replica's turn at encoding an image, the wait for another's included
SPAN_ENCODE = "encode"  #     encoder: one Encode call
SPAN_QUEUE = "queue"  #       waiting for room in the encoder's batch
SPAN_DECODE_IMAGE = "decode_image"  #       file bytes to pixels, of an image or of a video's frames
SPAN_VIT = "vit"  #       the vision transformer
SPAN_REDUCE = "reduce"  #       scans, projector, merging
SPAN_CACHE_PUT = "cache_put"  #       writing the caches
SPAN_PREFILL = "prefill"  #   the prompt through all layers
SPAN_PRUNE = "prune"  #     one pruning layer: ranking and gathering
SPAN_DECODE = "decode"  #   every token after the first
SPAN_VIT_BATCH = "vit_batch"  # encoder: one device pass; links to the request of each image in it

# ── Attributes: the model and the answer, by the semantic conventions.
ATTR_GEN_AI_OPERATION = "gen_ai.operation.name"  # "chat" or "text_completion"
ATTR_GEN_AI_PROVIDER = "gen_ai.provider.name"  # PROVIDER
ATTR_GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
ATTR_GEN_AI_RESPONSE_ID = "gen_ai.response.id"  # the request id
ATTR_GEN_AI_MAX_TOKENS = "gen_ai.request.max_tokens"
ATTR_GEN_AI_TEMPERATURE = "gen_ai.request.temperature"
ATTR_GEN_AI_TOP_P = "gen_ai.request.top_p"
ATTR_GEN_AI_TOP_K = "gen_ai.request.top_k"
ATTR_GEN_AI_SEED = "gen_ai.request.seed"
ATTR_GEN_AI_CHOICES = "gen_ai.request.choice.count"  # samples of one prompt
ATTR_GEN_AI_FINISH_REASONS = "gen_ai.response.finish_reasons"  # one for each sample
ATTR_GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"  # rows at the first layer, visual ones included
ATTR_GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
ATTR_GEN_AI_TOKEN_TYPE = "gen_ai.token.type"  # "input" or "output"
ATTR_ERROR_TYPE = "error.type"  # the error's class name; absent on success
ATTR_SERVER_ADDRESS = "server.address"  # of the endpoint that the SDK asked last: host, IP address or gRPC target
ATTR_SERVER_PORT = "server.port"
ATTR_RPC_METHOD = "rpc.method"
ATTR_RPC_STATUS_CODE = "rpc.grpc.status_code"  # gRPC's number
PROVIDER = "vscan"

# ── Attributes: requests and images.
ATTR_REQUEST_ID = "vscan.request_id"
ATTR_TENANT = "vscan.tenant"
ATTR_IMAGES = "vscan.images"  # images in the request
ATTR_VIDEOS = "vscan.videos"  # videos in the request
ATTR_IMAGE_DIGEST = "vscan.image.digest"  # first 8 hexadecimal digits of the SHA-256
ATTR_IMAGE_BYTES = "vscan.image.size_bytes"
ATTR_IMAGE_WIDTH = "vscan.image.width_pixels"
ATTR_IMAGE_HEIGHT = "vscan.image.height_pixels"
ATTR_VIDEO_FRAMES = "vscan.video.frames"  # frames of a video that are looked at
ATTR_PLACE = "vscan.place"  # where an image's tokens were found: "encoded", "memory", "redis", "shared", "encoder_memory"
ATTR_PLACES = "vscan.places"  # a list: one such place for each image of a request
ATTR_TOKENS_BEFORE = "vscan.visual_tokens.before_tokens"  # visual tokens before a stage
ATTR_TOKENS_AFTER = "vscan.visual_tokens.after_tokens"  # and after it
ATTR_STAGE = "vscan.stage"  # "encoder" (stage 1) or "prune" (stage 2)

# ── Attributes: the caches.
ATTR_CACHE_TIER = "vscan.cache.tier"  # "memory" or "redis"
ATTR_CACHE_RESULT = "vscan.cache.result"  # "hit", "miss", "bad_entry", "error", "skipped" (breaker open), "refused"
ATTR_CACHE_FLAW = "vscan.cache.flaw"  # why an entry was rejected: "tag", "key", "truncated", ...
ATTR_REDIS_OPERATION = "vscan.redis.operation"  # "get", "set", "exists", "delete", "lease", "renew", "release"
ATTR_REDIS_ACCESS = "vscan.redis.access"  # "read" or "write": each has a circuit breaker
ATTR_LEASE_OUTCOME = "vscan.cache.lease"  # "led", "waited", "taken_over", "alone", "lost"
ATTR_LEASE_POLLS = "vscan.cache.lease.polls"  # times that Redis was asked whose turn it is
ATTR_CACHE_HIT = "vscan.cache.hit"  # bool
ATTR_CACHE_BYTES = "vscan.cache.size_bytes"  # of the value
ATTR_DB_SYSTEM = "db.system.name"  # "redis"
ATTR_CACHE_ENTRIES = "vscan.cache.entries"  # keys asked for at once

# ── Attributes: the encoder.
ATTR_BATCH_IMAGES = "vscan.batch.images"
ATTR_BATCH_TILES = "vscan.batch.tiles"
ATTR_TILES = "vscan.tiles"  # of one image or video, as they go through the transformer
ATTR_DEVICE = "vscan.device"

# ── Attributes: the engine.
ATTR_QUEUE_MS = "vscan.queue_ms"
ATTR_PROMPT_TOKENS = "vscan.prompt_tokens"  # rows at the first layer
ATTR_VISUAL_TOKENS = "vscan.visual_tokens"  # visual rows among them
ATTR_SEGMENT_ROWS = "vscan.prefill.segment_rows"  # a list: rows of each segment
ATTR_REUSED_ROWS = "vscan.prefill.reused_rows"  # a list: rows of each segment that were in the KV cache already
ATTR_PRUNE_LAYER = "vscan.prune.layer"  # the layer before which it happened, from 0
ATTR_PRUNE_RATER = "vscan.prune.rater"
ATTR_COMPLETION_TOKENS = "vscan.completion_tokens"
ATTR_TIME_TO_FIRST_TOKEN_MS = "vscan.time_to_first_token_ms"
ATTR_SEGMENT = "vscan.segment"  # index of a segment, from 0
ATTR_PAGE_STATE = "vscan.page.state"  # "held" (by running requests), "idle" (a later prompt may reuse them) or "free"
ATTR_ATTEMPT = "vscan.attempt"  # requests that the SDK has sent for one question

# ── Attributes of metrics.
ATTR_REFUSAL = "vscan.refusal"  # "unauthenticated", "not_allowed", "rate" or "concurrency"
ATTR_STATUS = "vscan.status"  # gRPC's name of the status: "OK", "INVALID_ARGUMENT", ...
ATTR_MEDIA = "vscan.media"  # "image" or "video"


class Kind(Enum):
    """How a metric is measured."""

    COUNTER = "counter"  # only grows
    UP_DOWN = "up_down_counter"  # how many there are now, by differences
    HISTOGRAM = "histogram"  # a distribution
    GAUGE = "gauge"  # the last value


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: name, unit (UCUM; `{…}` counts things), what it says, and for a histogram the upper bounds of its buckets.

    Attributes:
        attributes: those that every point of it has.
        sometimes: those that a point has where there is something to say.
    """

    name: str
    unit: str
    kind: Kind
    description: str
    bounds: tuple[float, ...] | None = None
    attributes: tuple[str, ...] = ()
    sometimes: tuple[str, ...] = ()


_MS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000)
_SHORT_MS = (0.1, 0.2, *_MS)
_TOKENS = (1, 4, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)
_STEP = (*_BATCH, 256, 512, 1024, 2048, 4096, 8192, 16_384)
# The conventions' own bounds, and more of them where ours differ: objectives at 0.2 and 2 s, faster models, longer answers.
_FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.25, 0.5, 0.75, 1, 2, 2.5, 5, 7.5, 10, 20, 30, 60)
_PER_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
_ANSWER_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68)
_USAGE = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 65_536, 262_144)
_OF_A_MODEL = (ATTR_GEN_AI_OPERATION, ATTR_GEN_AI_PROVIDER, ATTR_GEN_AI_REQUEST_MODEL)

# ── Metrics: both services.
METRIC_READY = Metric("vscan.ready", "1", Kind.GAUGE, "1 while the service is ready, else 0: while it loads its model, too")
METRIC_CERTIFICATE_EXPIRY = Metric(
    "vscan.tls.certificate.expiry",
    "s",
    Kind.GAUGE,
    "When the server's certificate, or one sent with it, ends: seconds since 1970. Only with TLS",
)
METRIC_REQUESTS = Metric(
    "vscan.requests",
    "{request}",
    Kind.COUNTER,
    "Calls ended, by status (gRPC's name)",
    attributes=(ATTR_RPC_METHOD, ATTR_STATUS),
)
METRIC_REQUEST_DURATION = Metric(
    "vscan.request.duration",
    "ms",
    Kind.HISTOGRAM,
    "From a call's arrival to its end",
    _MS,
    (ATTR_RPC_METHOD, ATTR_STATUS),
)
METRIC_RUNNING_REQUESTS = Metric(
    "vscan.requests.running", "{request}", Kind.UP_DOWN, "Calls being served", attributes=(ATTR_RPC_METHOD,)
)
METRIC_REFUSALS = Metric(
    "vscan.refusals",
    "{request}",
    Kind.COUNTER,
    "Calls refused for who calls, by reason; for a limit with its tenant",
    attributes=(ATTR_RPC_METHOD, ATTR_REFUSAL),
    sometimes=(ATTR_TENANT,),
)
METRIC_PROCESS_TASKS = Metric("vscan.process.tasks", "{task}", Kind.GAUGE, "Tasks of the event loop that have not ended")
METRIC_PROCESS_THREADS = Metric("vscan.process.threads", "{thread}", Kind.GAUGE, "Threads, those of libraries too")
METRIC_PROCESS_DESCRIPTORS = Metric(
    "vscan.process.descriptors", "{descriptor}", Kind.GAUGE, "Open files, sockets and pipes of the process"
)
METRIC_LOOP_LAG = Metric(
    "vscan.loop.lag", "ms", Kind.HISTOGRAM, "How late the event loop comes to what is due, looked at twice a second", _MS
)
METRIC_VISUAL_TOKENS_BEFORE = Metric(
    "vscan.visual_tokens.before",
    "{token}",
    Kind.HISTOGRAM,
    "Visual tokens that reach a stage, of one image or prompt",
    _TOKENS,
    (ATTR_STAGE,),
)
METRIC_VISUAL_TOKENS_AFTER = Metric(
    "vscan.visual_tokens.after",
    "{token}",
    Kind.HISTOGRAM,
    "Visual tokens that leave a stage, of one image or prompt",
    _TOKENS,
    (ATTR_STAGE,),
)
METRIC_CACHE_LOOKUPS = Metric(
    "vscan.cache.lookups",
    "{lookup}",
    Kind.COUNTER,
    "Keys looked up",
    attributes=(ATTR_CACHE_TIER, ATTR_CACHE_RESULT),
)
METRIC_CACHE_WRITES = Metric(
    "vscan.cache.writes",
    "{write}",
    Kind.COUNTER,
    "Entries written, or not",
    attributes=(ATTR_CACHE_TIER, ATTR_CACHE_RESULT),
)
METRIC_CACHE_REJECTED = Metric(
    "vscan.cache.rejected",
    "{entry}",
    Kind.COUNTER,
    "Redis entries that were not to be trusted and were deleted, by reason",
    attributes=(ATTR_CACHE_FLAW,),
)
METRIC_REDIS_OPERATION = Metric(
    "vscan.redis.operation",
    "ms",
    Kind.HISTOGRAM,
    "How long Redis was waited for, a wait for a connection included; not while the breaker is open",
    _SHORT_MS,
    (ATTR_REDIS_OPERATION,),
    (ATTR_ERROR_TYPE,),
)
METRIC_REDIS_ERRORS = Metric(
    "vscan.redis.errors",
    "{error}",
    Kind.COUNTER,
    "Failed Redis operations",
    attributes=(ATTR_REDIS_OPERATION, ATTR_ERROR_TYPE),
)
METRIC_REDIS_LEFT_ALONE = Metric(
    "vscan.redis.left_alone",
    "{breaker}",
    Kind.GAUGE,
    "1 while the circuit breaker of reads or of writes is open, else 0",
    attributes=(ATTR_REDIS_ACCESS,),
)
METRIC_CACHE_LEASES = Metric(
    "vscan.cache.leases",
    "{turn}",
    Kind.COUNTER,
    "Turns at encoding an image that no cache had, by what became of them",
    attributes=(ATTR_LEASE_OUTCOME,),
)
METRIC_CACHE_BYTES = Metric("vscan.cache.memory", "By", Kind.GAUGE, "Bytes held by the memory tier")
METRIC_CACHE_ENTRIES = Metric("vscan.cache.memory.entries", "{entry}", Kind.GAUGE, "Entries held by the memory tier")

# ── Metrics: the encoder.
METRIC_ENCODER_QUEUE_WAIT = Metric(
    "vscan.encoder.queue_wait",
    "ms",
    Kind.HISTOGRAM,
    "From an image's admission to its batch's start (scale the encoder by it)",
    _MS,
)
METRIC_ENCODER_WAITING = Metric(
    "vscan.encoder.waiting",
    "{image}",
    Kind.UP_DOWN,
    "Images and videos admitted and not yet in a batch",
    attributes=(ATTR_MEDIA,),
)
METRIC_ENCODER_QUEUE_CAPACITY = Metric(
    "vscan.encoder.queue.capacity",
    "{image}",
    Kind.GAUGE,
    "Most images, and most videos, that may wait: what comes then is refused",
    attributes=(ATTR_MEDIA,),
)
METRIC_ENCODER_BATCH_IMAGES = Metric(
    "vscan.encoder.batch.images", "{image}", Kind.HISTOGRAM, "Images in one device pass", _BATCH
)
METRIC_ENCODER_BATCH_TILES = Metric("vscan.encoder.batch.tiles", "{tile}", Kind.HISTOGRAM, "Tiles in one device pass", _BATCH)
METRIC_ENCODER_VIT = Metric("vscan.encoder.vit", "ms", Kind.HISTOGRAM, "The vision transformer, one device pass", _MS)
METRIC_ENCODER_PASS = Metric(
    "vscan.encoder.pass",
    "ms",
    Kind.HISTOGRAM,
    "One device pass, copies and reduction included. On a GPU, where a pass begins before the last one has ended, counted from "
    "that end: so the rate of its sum, by 1000, is the share of time in which the device had work",
    _MS,
)
METRIC_ENCODER_SHARED = Metric(
    "vscan.encoder.shared", "{request}", Kind.COUNTER, "Requests answered by an encoding that another one had begun"
)

# ── Metrics: the decoder.
METRIC_TIME_TO_FIRST_TOKEN = Metric(
    "gen_ai.server.time_to_first_token",
    "s",
    Kind.HISTOGRAM,
    "From a request's arrival, read and let in, to its first token",
    _FIRST_TOKEN_S,
    _OF_A_MODEL,
)
METRIC_GIVEN_UP = Metric(
    "vscan.decoder.given_up",
    "s",
    Kind.HISTOGRAM,
    "From a request's arrival to when its caller left, or its time was up, without any token",
    _FIRST_TOKEN_S,
    _OF_A_MODEL,
)
METRIC_TIME_PER_OUTPUT_TOKEN = Metric(
    "gen_ai.server.time_per_output_token",
    "s",
    Kind.HISTOGRAM,
    "Between tokens after the first, mean of one answer",
    _PER_TOKEN_S,
    _OF_A_MODEL,
)
METRIC_GEN_AI_REQUEST_DURATION = Metric(
    "gen_ai.server.request.duration",
    "s",
    Kind.HISTOGRAM,
    "From a request's arrival to the end of its answer, or to its failure or cancellation",
    _ANSWER_S,
    _OF_A_MODEL,
    (ATTR_ERROR_TYPE,),
)
METRIC_TOKEN_USAGE = Metric(
    "gen_ai.client.token.usage",
    "{token}",
    Kind.HISTOGRAM,
    "Tokens of one answered request (the conventions have no name for a server's)",
    _USAGE,
    (*_OF_A_MODEL, ATTR_GEN_AI_TOKEN_TYPE),
)
METRIC_IMAGES = Metric(
    "vscan.images",
    "{image}",
    Kind.COUNTER,
    "Images and videos of requests that the engine took, by where their tokens were found",
    attributes=(ATTR_MEDIA, ATTR_PLACE),
)
METRIC_DECODER_WAITING = Metric(
    "vscan.decoder.waiting", "{request}", Kind.UP_DOWN, "Requests accepted and not yet running (scale the decoder by it)"
)
METRIC_DECODER_QUEUE_CAPACITY = Metric(
    "vscan.decoder.queue.capacity", "{request}", Kind.GAUGE, "Most requests that may wait: what comes then is refused"
)
METRIC_DECODER_RUNNING = Metric(
    "vscan.decoder.running", "{request}", Kind.UP_DOWN, "Requests in the engine's batch, each sample one"
)
METRIC_DECODER_CAPACITY = Metric(
    "vscan.decoder.capacity", "{request}", Kind.GAUGE, "Most requests in the engine's batch, each sample one"
)
METRIC_DECODER_QUEUE_WAIT = Metric(
    "vscan.decoder.queue_wait", "ms", Kind.HISTOGRAM, "From a request's acceptance to its first step", _MS
)
METRIC_TOKEN_GAP = Metric(
    "vscan.decoder.token_gap", "ms", Kind.HISTOGRAM, "Between two tokens of an answer on their way to the caller", _MS
)
METRIC_STEP = Metric(
    "vscan.decoder.step",
    "ms",
    Kind.HISTOGRAM,
    "One step of the engine that ran rows; the rate of its sum, by 1000, is the share of time in which the engine worked",
    _SHORT_MS,
)
METRIC_STEP_ROWS = Metric("vscan.decoder.step.rows", "{row}", Kind.HISTOGRAM, "Rows of one step at the first layer", _STEP)
METRIC_STEP_SEQUENCES = Metric(
    "vscan.decoder.step.sequences", "{sequence}", Kind.HISTOGRAM, "Sequences that had rows in one step", (*_BATCH, 256, 512)
)
METRIC_KV_ROWS = Metric("vscan.decoder.kv.rows", "{row}", Kind.GAUGE, "Rows held in the KV cache", attributes=(ATTR_SEGMENT,))
METRIC_KV_BYTES = Metric("vscan.decoder.kv.used", "By", Kind.GAUGE, "Bytes of the KV cache in use", attributes=(ATTR_SEGMENT,))
METRIC_KV_BLOCKS = Metric(
    "vscan.decoder.kv.blocks", "{block}", Kind.GAUGE, "Blocks of the KV cache in use", attributes=(ATTR_SEGMENT,)
)
METRIC_KV_IDLE_BYTES = Metric(
    "vscan.decoder.kv.idle",
    "By",
    Kind.GAUGE,
    "Bytes of the KV cache that nobody holds and a later prompt may reuse",
    attributes=(ATTR_SEGMENT,),
)
METRIC_KV_PAGES = Metric(
    "vscan.decoder.kv.pages", "{page}", Kind.GAUGE, "Pages of the KV cache, all of them", attributes=(ATTR_PAGE_STATE,)
)
METRIC_KV_REUSED_ROWS = Metric(
    "vscan.decoder.kv.reused_rows", "{row}", Kind.COUNTER, "Prompt rows found in the KV cache instead of run"
)
METRIC_PREEMPTIONS = Metric(
    "vscan.decoder.preemptions", "{preemption}", Kind.COUNTER, "Running requests that had to give their memory back for a while"
)


def all_metrics() -> tuple[Metric, ...]:
    """Every metric named here."""
    return tuple(value for name, value in globals().items() if name.startswith("METRIC_"))
