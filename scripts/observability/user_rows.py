"""The rows about what users get."""

from __future__ import annotations

from scripts.observability.panels import (
    COUNT,
    MS,
    PER_SECOND,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    AnyPanel,
    Limits,
    distribution,
    number,
    series,
    traces_link,
)
from scripts.observability.queries import GENERATE, WITHIN, gauge, mean_of_questions, quantiles, rate


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
            "Answers that began later than 2 s, or not at all while their caller waited that long. The objective allows 5 %.",
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
        ).links([traces_link("Slow traces", '{name="generate" && span.vscan.time_to_first_token_ms>2000}')]),
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
            REQUESTS_PER_SECOND,
            {"{{vscan_status}}": rate("vscan_requests_total", "vscan_status", GENERATE)},
            stacked=True,
        ),
        series(
            "Calls by method",
            "All methods of both services, those that services ask each other included.",
            REQUESTS_PER_SECOND,
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
            f"sum by (le) (increase(gen_ai_server_time_to_first_token_seconds_bucket{{<here>}}{WITHIN}))",
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
            "Rows of prompts (visual ones included) and tokens of answers, a second.",
            COUNT,
            {"{{gen_ai_token_type}}": rate("gen_ai_client_token_usage_sum", "gen_ai_token_type")},
        ),
        series(
            "Refused callers",
            "Unknown or not allowed; over the rate or the concurrency of their tenant. And those who left, or whose time "
            "was up, before an answer began.",
            REQUESTS_PER_SECOND,
            {
                "{{vscan_refusal}} {{vscan_tenant}}": rate("vscan_refusals_total", "vscan_refusal, vscan_tenant"),
                "gave up: {{instance}}": rate("vscan_decoder_given_up_seconds_count", "instance"),
            },
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
            "Mean of an image (encoder) and of a prompt (prune), of questions.",
            COUNT,
            {"{{vscan_stage}}": mean_of_questions("vscan_visual_tokens_before", "vscan_stage")},
        ),
        series(
            "After each stage",
            "Mean of an image (encoder) and of a prompt (prune), of questions.",
            COUNT,
            {"{{vscan_stage}}": mean_of_questions("vscan_visual_tokens_after", "vscan_stage")},
        ),
    ]
