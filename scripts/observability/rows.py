"""What the dashboard shows, row by row."""

from __future__ import annotations

from scripts.observability.panels import (
    BYTES,
    COUNT,
    MS,
    PER_SECOND,
    SECONDS,
    SHARE,
    AnyPanel,
    Limits,
    distribution,
    number,
    series,
    traces_link,
)

_WITHIN = "[$__rate_interval]"
GENERATE = 'rpc_method="/vscan.v1.Decoder/Generate"'
ENCODE = 'rpc_method="/vscan.v1.VisionEncoder/Encode"'
QUANTILES = (0.5, 0.95, 0.99)


def quantiles(histogram: str, labels: str = "") -> dict[str, str]:
    """p50, p95 and p99 of a histogram, over all instances that are shown."""
    rate = f"sum by (le) (rate({histogram}_bucket{{<here>{labels and ',' + labels}}}{_WITHIN}))"
    return {f"p{quantile * 100:.0f}": f"histogram_quantile({quantile}, {rate})" for quantile in QUANTILES}


def rate(counter: str, by: str, labels: str = "") -> str:
    """Its growth in a second, by a label."""
    return f"sum by ({by}) (rate({counter}{{<here>{labels and ',' + labels}}}{_WITHIN}))"


def mean(histogram: str, by: str = "instance", labels: str = "") -> str:
    """Mean of what a histogram saw."""
    return f"{rate(histogram + '_sum', by, labels)} / ({rate(histogram + '_count', by, labels)} > 0)"


def gauge(name: str, by: str, labels: str = "") -> str:
    """Its value now, summed but for a label."""
    return f"sum by ({by}) ({name}{{<here>{labels and ',' + labels}}})"


def objectives() -> list[AnyPanel]:
    """What users are promised. Read from recorded rules, so instance and job choose nothing here."""
    late, failed = "namespace:vscan_first_tokens_late", "namespace:vscan_answers_failed"
    burn_limits = Limits(yellow=1, red=6)
    return [
        number(
            "First token, p95",
            "From a request's arrival to its first token, 5 minutes. The objective is 2 s for 95 %.",
            SECONDS,
            "max(namespace:vscan_first_token_seconds:p95_rate5m{<there>})",
            limits=Limits(1, 2),
        ),
        number(
            "Late, 1 h",
            "Answers that began later than 2 s. The objective allows 5 %.",
            SHARE,
            f"max({late}:ratio_rate1h{{<there>}})",
            limits=Limits(0.02, 0.05),
        ),
        number(
            "Failed, 1 h",
            "Questions that failed by the service's own fault; which those are stands in recording.rules.yml. "
            "The objective allows 0.5 %.",
            SHARE,
            f"max({failed}:ratio_rate1h{{<there>}})",
            limits=Limits(0.002, 0.005),
        ),
        number(
            "Budget left, late",
            "Of the late answers that three days allow.",
            SHARE,
            f"1 - max({late}:ratio_rate3d{{<there>}}) / 0.05",
            limits=Limits(0.5, 0.1, falling=True),
        ),
        number(
            "Budget left, failed",
            "Of the failures that three days allow.",
            SHARE,
            f"1 - max({failed}:ratio_rate3d{{<there>}}) / 0.005",
            limits=Limits(0.5, 0.1, falling=True),
        ),
        number(
            "Alerts",
            "Alerts of this page's rules that are firing.",
            COUNT,
            'count(ALERTS{alertname=~"VScan.+",alertstate="firing",<there>}) or vector(0)',
            limits=Limits(1, 3),
        ),
        series(
            "First token",
            "Quantiles over 5 minutes. Rising with the queue wait: too few decoders. Rising with images that are "
            "encoded: too few encoders, or fewer hits.",
            SECONDS,
            {f"p{n}": f"max(namespace:vscan_first_token_seconds:p{n}_rate5m{{<there>}})" for n in (50, 95, 99)},
            limits=Limits(1, 2),
        ).links([traces_link("Slow traces", '{name="generate" && duration>2s}')]),
        series(
            "Burn: late first tokens",
            "How many times faster than allowed the budget is spent; alerts page at 14.4 over 1 h and at 6 over 6 h.",
            COUNT,
            {w: f"max({late}:ratio_rate{w}{{<there>}}) / 0.05" for w in ("5m", "1h", "6h", "3d")},
            limits=burn_limits,
        ),
        series(
            "Burn: failures",
            "The same of failed questions.",
            COUNT,
            {w: f"max({failed}:ratio_rate{w}{{<there>}}) / 0.005" for w in ("5m", "1h", "6h", "3d")},
            limits=burn_limits,
        ).links([traces_link("Failed traces", '{name="generate" && status=error}')]),
    ]


def traffic() -> list[AnyPanel]:
    """What is asked, and how fast answers come."""
    return [
        series(
            "Questions by status",
            "Calls of Generate that ended. INVALID_ARGUMENT is the caller's doing, RESOURCE_EXHAUSTED a "
            "full queue or a tenant's limit.",
            PER_SECOND,
            {"{{vscan_status}}": rate("vscan_requests_total", "vscan_status", GENERATE)},
            stacked=True,
        ),
        series(
            "Calls by method",
            "All methods of both services, those that services ask each other included.",
            PER_SECOND,
            {"{{rpc_method}}": rate("vscan_requests_total", "rpc_method")},
            stacked=True,
        ),
        series(
            "Running calls",
            "Calls being served now.",
            COUNT,
            {"{{rpc_method}}": gauge("vscan_requests_running", "rpc_method")},
            stacked=True,
        ),
        distribution(
            "First tokens",
            "How many answers began how late.",
            SECONDS,
            f"sum by (le) (increase(gen_ai_server_time_to_first_token_seconds_bucket{{<here>}}{_WITHIN}))",
        ),
        series(
            "Between tokens",
            "Between two tokens of an answer on their way to the caller: what a reader notices.",
            MS,
            quantiles("vscan_decoder_token_gap_milliseconds"),
        ),
        series(
            "Whole answers",
            "From a request's arrival to the end of its answer, of those that were answered.",
            SECONDS,
            quantiles("gen_ai_server_request_duration_seconds", 'error_type=""'),
        ),
        series(
            "Time per output token",
            "Mean of one answer, after the first.",
            SECONDS,
            quantiles("gen_ai_server_time_per_output_token_seconds"),
        ),
        series(
            "Tokens",
            "Rows of prompts (visual ones included) and tokens of answers.",
            "short",
            {"{{gen_ai_token_type}}": rate("gen_ai_client_token_usage_sum", "gen_ai_token_type")},
        ),
        series(
            "Refused callers",
            "Unknown or not allowed; over the rate or the concurrency of their tenant.",
            PER_SECOND,
            {"{{vscan_refusal}} {{vscan_tenant}}": rate("vscan_refusals_total", "vscan_refusal, vscan_tenant")},
        ),
    ]


def places() -> list[AnyPanel]:
    """Where the tokens of images were found."""
    return [
        series(
            "Images by place",
            "memory: the decoder's; redis; encoder_memory; shared: another request was encoding it; encoded.",
            PER_SECOND,
            {"{{vscan_place}}": rate("vscan_images_total", "vscan_place")},
            stacked=True,
        ),
        series(
            "Hit rate as users see it",
            "Of the images in questions, found in any cache.",
            SHARE,
            {
                "5 minutes": "min(namespace:vscan_images_found:ratio_rate5m{<there>})",
                "1 hour": "min(namespace:vscan_images_found:ratio_rate1h{<there>})",
            },
            most=1,
        ),
        series(
            "Hit rate per tier",
            "Of the keys that each tier was asked for. Redis is asked for what memory lacks.",
            SHARE,
            {"{{job}} {{vscan_cache_tier}}": "namespace_job_tier:vscan_cache_hits:ratio_rate5m{<there>}"},
            most=1,
        ),
        series(
            "Reused prompt rows",
            "Rows of prompts found in the KV cache, a second.",
            COUNT,
            {"{{instance}}": rate("vscan_decoder_kv_reused_rows_total", "instance")},
        ),
    ]


def tokens() -> list[AnyPanel]:
    """Visual tokens: what they were, and what is left."""
    kept = "namespace_stage:vscan_visual_tokens_kept:ratio_rate5m"
    return [
        series(
            "Left after each stage",
            "encoder: of an image's tokens after stage 1. prune: of a prompt's after stage 2, of those that stage 1 left.",
            SHARE,
            {"{{vscan_stage}}": f"avg by (vscan_stage) ({kept}{{<there>}})"},
            most=1,
        ),
        series(
            "Before each stage",
            "Mean of an image (encoder) and of a prompt (prune).",
            COUNT,
            {"{{vscan_stage}}": mean("vscan_visual_tokens_before", "vscan_stage")},
        ),
        series(
            "After each stage",
            "Mean of an image (encoder) and of a prompt (prune).",
            COUNT,
            {"{{vscan_stage}}": mean("vscan_visual_tokens_after", "vscan_stage")},
        ),
    ]


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
            PER_SECOND,
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
                f"(rate(vscan_loop_lag_milliseconds_bucket{{<here>}}{_WITHIN})))"
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
            "Tasks and threads",
            "Of the event loop, and of the process.",
            COUNT,
            {f"tasks {name}": gauge("vscan_process_tasks", by), f"threads {name}": gauge("vscan_process_threads", by)},
        ),
    ]


ROWS = {
    "Objectives": objectives,
    "Traffic": traffic,
    "Where images were found": places,
    "Visual tokens": tokens,
    "Encoder": encoder,
    "Decoder": decoder,
    "Redis and caches": caches,
    "Process": processes,
}
