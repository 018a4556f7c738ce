"""What services say of themselves on their metrics port, before and after a run."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence

from vscan.errors import InvalidArgument
from vscan.telemetry import names
from vscan.telemetry.prometheus_names import family_name, label_name

_GENERATE = {label_name(names.ATTR_RPC_METHOD): "/vscan.v1.Decoder/Generate"}
_OK = {label_name(names.ATTR_STATUS): "OK"}
# Name in the report → name with Prometheus, and labels that are wanted.
FIGURES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "decoder_step_ms": (f"{family_name(names.METRIC_STEP)}_sum", {}),
    "decoder_steps": (f"{family_name(names.METRIC_STEP)}_count", {}),
    "decoder_reused_rows": (f"{family_name(names.METRIC_KV_REUSED_ROWS)}_total", {}),
    "encoder_pass_ms": (f"{family_name(names.METRIC_ENCODER_PASS)}_sum", {}),
    "encoder_passes": (f"{family_name(names.METRIC_ENCODER_PASS)}_count", {}),
    "encoder_images": (f"{family_name(names.METRIC_ENCODER_BATCH_IMAGES)}_sum", {}),
    "calls": (f"{family_name(names.METRIC_REQUESTS)}_total", _GENERATE),
    "answers": (f"{family_name(names.METRIC_REQUESTS)}_total", {**_GENERATE, **_OK}),
}
_PATIENCE_S = 10.0


def read_counters(urls: Sequence[str]) -> dict[str, float]:
    """The counters, summed over these pages; those that no page has are left out.

    Raises:
        InvalidArgument: a page cannot be read.
        ModuleNotFoundError: without the extra `bench` or `serve`.
    """
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, float] = {}
    for url in urls:
        for family in text_string_to_metric_families(_page(url)):
            for sample in family.samples:
                for name, (wanted, labels) in FIGURES.items():
                    if sample.name == wanted and labels.items() <= sample.labels.items():
                        found[name] = found.get(name, 0.0) + sample.value
    return found


def counted(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What came between; a counter that was not there yet was 0."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def _page(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InvalidArgument("--metrics", f"{url!r}", limit="an http:// or https:// address")
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_S) as page:
            return str(page.read().decode())
    except OSError as error:
        raise InvalidArgument("--metrics", f"{url}: {error}") from error
