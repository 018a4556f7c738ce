"""The rows about the services: their queues, devices, caches and processes."""

from __future__ import annotations

from scripts.observability.panels import (
    BYTES,
    COUNT,
    MS,
    PER_SECOND,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    AnyPanel,
    Limits,
    series,
)
from scripts.observability.queries import ENCODE, QUANTILES, WITHIN, gauge, mean, quantiles, rate


def encoder() -> list[AnyPanel]:
    """The encoder's queue and device."""
    return [
        series(
            "Queue wait",
            "From an image's admission to its batch. Encoders are scaled by it.",
            MS,
            quantiles("vscan_encoder_queue_wait_milliseconds"),
            limits=Limits(500, 1000),
        ),
        series(
            "Waiting",
            "Images and videos admitted and in no batch yet, and how many may wait.",
            COUNT,
            {
                "{{instance}} {{vscan_media}}": gauge("vscan_encoder_waiting", "instance, vscan_media"),
                "may wait: {{instance}} {{vscan_media}}": gauge("vscan_encoder_queue_capacity", "instance, vscan_media"),
            },
        ),
        series(
            "Busy",
            "The share of time in which the device had work.",
            SHARE,
            {"{{instance}}": f"{rate('vscan_encoder_pass_milliseconds_sum', 'instance')} / 1000"},
            most=1,
            limits=Limits(0.7, 0.9),
        ),
        series(
            "Device pass",
            "One pass of the device, and the transformer's part of it.",
            MS,
            quantiles("vscan_encoder_pass_milliseconds") | {"transformer, mean": mean("vscan_encoder_vit_milliseconds")},
        ),
        series(
            "Batch",
            "Mean images and tiles of one pass. One image a pass while many wait: batches are bounded by tiles.",
            COUNT,
            {
                "images {{instance}}": mean("vscan_encoder_batch_images"),
                "tiles {{instance}}": mean("vscan_encoder_batch_tiles"),
            },
        ),
        series(
            "Encode by status",
            "Calls of Encode that ended, and those that took an encoding another one had begun.",
            REQUESTS_PER_SECOND,
            {
                "{{vscan_status}}": rate("vscan_requests_total", "vscan_status", ENCODE),
                "shared {{instance}}": rate("vscan_encoder_shared_total", "instance"),
            },
        ),
    ]


def decoder() -> list[AnyPanel]:
    """The engine's queue, its steps and its memory."""
    return [
        series(
            "Waiting and running",
            "Requests in the queue and in the batch, and how many may be. Decoders are scaled by those that wait.",
            COUNT,
            {
                "waiting {{instance}}": gauge("vscan_decoder_waiting", "instance"),
                "running {{instance}}": gauge("vscan_decoder_running", "instance"),
                "may wait: {{instance}}": gauge("vscan_decoder_queue_capacity", "instance"),
                "may run: {{instance}}": gauge("vscan_decoder_capacity", "instance"),
            },
        ),
        series(
            "Queue wait",
            "From a request's acceptance to its first step.",
            MS,
            quantiles("vscan_decoder_queue_wait_milliseconds"),
        ),
        series(
            "Busy",
            "The share of time in which the engine was in a step.",
            SHARE,
            {"{{instance}}": f"{rate('vscan_decoder_step_milliseconds_sum', 'instance')} / 1000"},
            most=1,
        ),
        series(
            "Step",
            "How long a step takes. It bounds the time between tokens.",
            MS,
            quantiles("vscan_decoder_step_milliseconds"),
        ),
        series(
            "Sequences and rows of a step",
            "Means. Rows are those of prompts and one of each sequence that is decoding.",
            COUNT,
            {
                "sequences {{instance}}": mean("vscan_decoder_step_sequences"),
                "rows {{instance}}": mean("vscan_decoder_step_rows"),
            },
        ),
        series(
            "KV pages",
            "held: by running requests. idle: nobody's, reused by a later prompt or given away. free.",
            COUNT,
            {"{{vscan_page_state}}": gauge("vscan_decoder_kv_pages", "vscan_page_state")},
            stacked=True,
        ),
        series(
            "KV rows by segment",
            "Rows held. Segments after a pruning layer hold fewer.",
            COUNT,
            {"segment {{vscan_segment}}": gauge("vscan_decoder_kv_rows", "vscan_segment")},
        ),
        series(
            "KV bytes by segment",
            "In use, and idle ones that a later prompt may reuse.",
            BYTES,
            {
                "used {{vscan_segment}}": gauge("vscan_decoder_kv_used_bytes", "vscan_segment"),
                "idle {{vscan_segment}}": gauge("vscan_decoder_kv_idle_bytes", "vscan_segment"),
            },
        ),
        series(
            "Preemptions",
            "Running requests that gave their pages back for a while, a second.",
            PER_SECOND,
            {"{{instance}}": rate("vscan_decoder_preemptions_total", "instance")},
        ),
    ]


def gateway() -> list[AnyPanel]:
    """HTTP of gateways, where there are any. Others measure theirs under the same names: only ours have the second metric."""
    ours = "and on (namespace, job, instance) vscan_process_threads{<here>}"

    def growth(name: str, by: str) -> str:
        return f"sum by ({by}) (rate({name}{{<here>}}{WITHIN}) {ours})"

    durations = growth("http_server_request_duration_seconds_bucket", "le")
    body = "http_server_request_body_size_bytes"
    return [
        series(
            "HTTP requests by status",
            "Requests that ended. 429: a limit or a full queue. 503: no decoder, or one that is stopping. 504: no answer in "
            "time. What fails in the middle of a stream has 200.",
            REQUESTS_PER_SECOND,
            {
                "{{http_response_status_code}}": "sum by (http_response_status_code) "
                "(namespace_job_code:vscan_http_requests:rate5m{<there>})"
            },
            stacked=True,
        ),
        series(
            "HTTP, how long",
            "From a request's head to the end of its answer, streams included.",
            SECONDS,
            {f"p{quantile * 100:.0f}": f"histogram_quantile({quantile}, {durations})" for quantile in QUANTILES},
        ),
        series(
            "HTTP requests running",
            "At each gateway; by default 256 may be (MAX_CONCURRENT_REQUESTS).",
            COUNT,
            {"{{instance}}": f"sum by (instance) (http_server_active_requests{{<here>}} {ours})"},
        ),
        series(
            "Bodies",
            "Mean size of a request's.",
            BYTES,
            {"{{instance}}": f"{growth(f'{body}_sum', 'instance')} / ({growth(f'{body}_count', 'instance')} > 0)"},
        ),
    ]


def caches() -> list[AnyPanel]:
    """Redis, the memory tier, and who encodes for whom."""
    operation = "sum by (le, vscan_redis_operation) (rate(vscan_redis_operation_milliseconds_bucket{<here>}[$__rate_interval]))"
    return [
        series(
            "Redis, p95",
            "How long Redis was waited for, by operation.",
            MS,
            {"{{vscan_redis_operation}}": f"histogram_quantile(0.95, {operation})"},
            limits=Limits(50, 200),
        ),
        series(
            "Redis errors",
            "Failed operations. Requests go on without Redis.",
            PER_SECOND,
            {"{{vscan_redis_operation}} {{error_type}}": rate("vscan_redis_errors_total", "vscan_redis_operation, error_type")},
        ),
        series(
            "Redis left alone",
            "1 while the breaker of reads or of writes is open.",
            COUNT,
            {"{{instance}} {{vscan_redis_access}}": gauge("vscan_redis_left_alone", "instance, vscan_redis_access")},
            most=1,
        ),
        series(
            "Lookups",
            "Keys looked up, by tier and result.",
            PER_SECOND,
            {
                "{{vscan_cache_tier}} {{vscan_cache_result}}": rate(
                    "vscan_cache_lookups_total", "vscan_cache_tier, vscan_cache_result"
                )
            },
        ),
        series(
            "Writes",
            "Entries written, by tier and result.",
            PER_SECOND,
            {
                "{{vscan_cache_tier}} {{vscan_cache_result}}": rate(
                    "vscan_cache_writes_total", "vscan_cache_tier, vscan_cache_result"
                )
            },
        ),
        series(
            "Rejected entries",
            "Not to be trusted, and deleted. key, tag, body: another secret, or somebody else writes.",
            PER_SECOND,
            {"{{vscan_cache_flaw}}": rate("vscan_cache_rejected_total", "vscan_cache_flaw")},
        ),
        series(
            "Turns at encoding",
            "What became of the leases among encoders.",
            PER_SECOND,
            {"{{vscan_cache_lease}}": rate("vscan_cache_leases_total", "vscan_cache_lease")},
        ),
        series(
            "Memory tier",
            "Bytes held in each process.",
            BYTES,
            {"{{job}} {{instance}}": gauge("vscan_cache_memory_bytes", "job, instance")},
        ),
        series(
            "Entries in memory",
            "Images and videos held in each process.",
            COUNT,
            {"{{job}} {{instance}}": gauge("vscan_cache_memory_entries", "job, instance")},
        ),
    ]


def processes() -> list[AnyPanel]:
    """The processes themselves."""
    by = "job, instance"
    name = "{{job}} {{instance}}"
    return [
        series("Ready", "1 while the service is ready.", COUNT, {name: f"min by ({by}) (vscan_ready{{<here>}})"}, most=1),
        series("CPU", "Cores in use.", COUNT, {name: rate("process_cpu_seconds_total", by)}),
        series(
            "Memory", "Resident bytes, without what lies on a GPU.", BYTES, {name: gauge("process_resident_memory_bytes", by)}
        ),
        series(
            "Event loop, how late, p99",
            "Half a second late is a process that answers nobody meanwhile.",
            MS,
            {
                name: "histogram_quantile(0.99, sum by (job, instance, le) "
                f"(rate(vscan_loop_lag_milliseconds_bucket{{<here>}}{WITHIN})))"
            },
            limits=Limits(100, 500),
        ),
        series(
            "Descriptors",
            "Open ones, of those that the process may have.",
            SHARE,
            {name: f"{gauge('vscan_process_descriptors', by)} / {gauge('process_max_fds', by)}"},
            most=1,
            limits=Limits(0.6, 0.8),
        ),
        series(
            "Certificate",
            "How long the server's certificate is still good for. Without TLS there is none.",
            SECONDS,
            {name: f"min by ({by}) (vscan_tls_certificate_expiry_seconds{{<here>}}) - time()"},
            limits=Limits(14 * 86_400, 86_400, falling=True),
        ),
        series(
            "Tasks and threads",
            "Of the event loop, and of the process.",
            COUNT,
            {f"tasks {name}": gauge("vscan_process_tasks", by), f"threads {name}": gauge("vscan_process_threads", by)},
        ),
    ]
