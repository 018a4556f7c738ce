"""Expressions that many panels share; `<here>` as in `panels`."""

from __future__ import annotations

WITHIN = "[$__rate_interval]"
GENERATE = 'rpc_method="/vscan.v1.Decoder/Generate"'
ENCODE = 'rpc_method="/vscan.v1.VisionEncoder/Encode"'
QUANTILES = (0.5, 0.95, 0.99)


def quantiles(histogram: str, labels: str = "") -> dict[str, str]:
    """p50, p95 and p99 of a histogram, over all instances that are shown."""
    rate = f"sum by (le) (rate({histogram}_bucket{{<here>{labels and ',' + labels}}}{WITHIN}))"
    return {f"p{quantile * 100:.0f}": f"histogram_quantile({quantile}, {rate})" for quantile in QUANTILES}


def rate(counter: str, by: str, labels: str = "") -> str:
    """Its growth in a second, by a label."""
    return f"sum by ({by}) (rate({counter}{{<here>{labels and ',' + labels}}}{WITHIN}))"


def mean(histogram: str, by: str = "instance", labels: str = "") -> str:
    """Mean of what a histogram saw."""
    return f"{rate(histogram + '_sum', by, labels)} / ({rate(histogram + '_count', by, labels)} > 0)"


def mean_of_questions(histogram: str, by: str) -> str:
    """The same of what decoders saw: encoders measure it too, of what they make anew."""
    parts = (f"rate({histogram}_{part}{{<here>}}{WITHIN})" for part in ("sum", "count"))
    total, count = (
        f"sum by ({by}) ({part} and on (namespace, job, instance) vscan_decoder_capacity{{<here>}})" for part in parts
    )
    return f"{total} / ({count} > 0)"


def gauge(name: str, by: str, labels: str = "") -> str:
    """Its value now, summed but for a label."""
    return f"sum by ({by}) ({name}{{<here>{labels and ',' + labels}}})"
