"""`docs/metrics.md`: every metric, span and field of a log line, from `vscan/telemetry/names.py` and `catalogue.py`."""

from __future__ import annotations

from collections.abc import Iterable

from scripts.pages.markdown import code, generated_from, page, table
from vscan.telemetry.catalogue import LABELS, LOG_FIELDS, SPANS
from vscan.telemetry.names import Kind, Metric, all_metrics
from vscan.telemetry.prometheus_names import family_name, label_name, series_names

_GROUPS = {"The decoder": ("vscan.decoder.", "gen_ai.", "vscan.images"), "The encoder": ("vscan.encoder.",)}
_BOTH = "Both services"
_KINDS = {Kind.UP_DOWN: "up-down counter"}

_INTRO = """
The same metrics are served to Prometheus (`METRICS_BIND`) and sent over OTLP (`OTLP_ENDPOINT`, every minute, or every
`OTEL_METRIC_EXPORT_INTERVAL` milliseconds). Over OTLP they have the first name, with Prometheus the second; there dots of
attributes become underscores too: `rpc.method` is the label `rpc_method`. A label that a series has nothing to say with is
empty.
""".strip()

_RESOURCE = """
Who measured is in the resource, with Prometheus in `target_info`: `service.name` (`vscan-encoder` or `vscan-decoder`),
`service.version` (the release), `service.instance.id` (another one for each process).
`OTEL_RESOURCE_ATTRIBUTES=k8s.pod.name=…,k8s.namespace.name=…` adds to it, and may give `service.instance.id`; the name and
the version stay. Beside these there are Prometheus' own `process_*` of the process: processor time, memory, descriptors.
""".strip()

_EXEMPLARS = """
Over OTLP histograms carry exemplars: for some values of each bucket the trace of the request that gave it, where that is
sampled; for passes of the encoder that of the batch, which links to its requests. Steps of the engine, and what else is
measured beside requests, have none, nor has anything served to Prometheus: its exporter cannot.
""".strip()

_TRACES = """
Spans of the services and of the SDK. Those of gRPC's instrumentation (`vscan.v1.Decoder/Generate`, a client's and a server's)
lie between processes and are not listed. `—` is a root, or the first below a call.
""".strip()

_LOGS = """
Each call ends in one line of the logger `vscan.request`, as JSON with `LOG_FORMAT=json`. A field that has nothing to say is
absent. Prompts, answers, images and whole digests are never in it.
""".strip()


def metrics_page() -> str:
    """The whole page."""
    blocks = [generated_from("`vscan/telemetry/names.py` and `catalogue.py`"), "# Metrics, traces and logs", _INTRO, _RESOURCE]
    for group, metrics in _grouped().items():
        blocks += [f"## {group}", _metrics(metrics)]
    blocks += ["## Buckets", _EXEMPLARS, _buckets(), "## Attributes of metrics", _labels()]
    blocks += ["## Spans", _TRACES, _spans(), "## Fields of a request's line", _LOGS, _fields()]
    return page(blocks)


def _grouped() -> dict[str, list[Metric]]:
    groups: dict[str, list[Metric]] = {_BOTH: [], **{group: [] for group in _GROUPS}}
    for metric in all_metrics():
        mine = [group for group, prefixes in _GROUPS.items() if metric.name.startswith(prefixes)]
        groups[mine[0] if mine else _BOTH].append(metric)
    return groups


def _metrics(metrics: Iterable[Metric]) -> str:
    rows = [
        [
            code(metric.name),
            code(family_name(metric) if metric.kind is Kind.HISTOGRAM else next(iter(series_names(metric)))),
            _KINDS.get(metric.kind, metric.kind.value),
            code(metric.unit),
            ", ".join([*map(code, metric.attributes), *(f"{code(name)} if any" for name in metric.sometimes)]),
            metric.description,
        ]
        for metric in metrics
    ]
    return table(["OTLP", "Prometheus (a histogram's with `_bucket`, `_sum`, `_count`)", "Kind", "Unit", "By", "Says"], rows)


def _buckets() -> str:
    by_bounds: dict[tuple[float, ...], list[str]] = {}
    for metric in all_metrics():
        if metric.bounds:
            by_bounds.setdefault(metric.bounds, []).append(code(metric.name))
    rows = [[", ".join(metrics), " ".join(f"{bound:g}" for bound in bounds)] for bounds, metrics in by_bounds.items()]
    return table(["Histograms", "Upper bounds"], rows)


def _labels() -> str:
    rows = [
        [code(name), code(label_name(name)), values if isinstance(values, str) else ", ".join(map(code, values))]
        for name, values in LABELS.items()
    ]
    return table(["Attribute", "Label", "Values"], rows)


def _spans() -> str:
    rows = [
        [
            code(span.name),
            span.by,
            ", ".join(map(code, span.parents)) or "—",
            span.says,
            ", ".join(map(code, span.attributes)),
        ]
        for span in SPANS
    ]
    return table(["Span", "By", "Below", "Says", "Attributes"], rows)


def _fields() -> str:
    return table(["Field", "By", "Says"], [[code(name), by, says] for name, (by, says) in LOG_FIELDS.items()])
