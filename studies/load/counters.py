"""What services say of themselves on their metrics port, before and after a run."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping, Sequence

from vscan.errors import InvalidArgument

# Name in the report → name with Prometheus, and labels that are wanted.
FIGURES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "decoder_step_ms": ("vscan_decoder_step_milliseconds_sum", {}),
    "decoder_steps": ("vscan_decoder_step_milliseconds_count", {}),
    "decoder_reused_rows": ("vscan_decoder_kv_reused_rows_total", {}),
    "encoder_pass_ms": ("vscan_encoder_pass_milliseconds_sum", {}),
    "encoder_passes": ("vscan_encoder_pass_milliseconds_count", {}),
    "encoder_images": ("vscan_encoder_batch_images_sum", {}),
    "answers": ("vscan_requests_total", {"rpc_method": "vscan.v1.Decoder/Generate", "vscan_status": "OK"}),
    "calls": ("vscan_requests_total", {"rpc_method": "vscan.v1.Decoder/Generate"}),
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
