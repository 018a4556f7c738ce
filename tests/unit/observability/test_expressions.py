"""Rules, alerts and dashboard ask only for what the services serve, and lead to a page that says what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc
import pytest
import yaml

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from gateway_service.config import GatewaySettings
from page_service.config import PageSettings
from scripts.observability.promql import Selection, names_in
from scripts.observability.sources import (
    LEVELS,
    OBSERVABILITY,
    PROMETHEUS,
    Expression,
    alerts,
    all_expressions,
    groups,
    level_labels,
    recorded,
)
from scripts.protos import ROOT
from vscan.telemetry.catalogue import LABELS
from vscan.telemetry.names import METRIC_GIVEN_UP, METRIC_TIME_TO_FIRST_TOKEN, Kind, Metric, all_metrics
from vscan.telemetry.prometheus_names import label_name, series_names
from vscan.v1 import decoder_pb2, encoder_pb2

# What Prometheus adds when it scrapes, on Kubernetes too.
SCRAPED = frozenset({"job", "instance", "namespace"})
# Of Prometheus itself, and of the client library's process collector.
OTHERS: Mapping[str, frozenset[str]] = {
    "up": SCRAPED,
    "ALERTS": frozenset({"alertname", "alertstate", "namespace"}),
    "process_start_time_seconds": SCRAPED,
    "process_cpu_seconds_total": SCRAPED,
    "process_resident_memory_bytes": SCRAPED,
    "process_max_fds": SCRAPED,
    # Of OpenTelemetry's instrumentation for ASGI, at gateways; `tests/system` asks a real one for them.
    "http_server_active_requests": SCRAPED,
    **{
        f"http_server_{name}_{part}": SCRAPED | {"le", "http_response_status_code"}
        for name in ("request_duration_seconds", "request_body_size_bytes", "response_body_size_bytes")
        for part in ("bucket", "sum", "count")
    },
}


def _labels(metric: Metric) -> frozenset[str]:
    of_buckets = {"le"} if metric.kind is Kind.HISTOGRAM else set()
    return SCRAPED | of_buckets | {label_name(name) for name in (*metric.attributes, *metric.sometimes)}


KNOWN: Mapping[str, frozenset[str]] = {
    **OTHERS,
    **{name: _labels(metric) for metric in all_metrics() for name in series_names(metric)},
    **{name: level_labels(name) for name in recorded()},
}


# Of labels with few values, all of them; and the methods of the contracts and the statuses of gRPC.
VALUES: Mapping[str, frozenset[str]] = {
    **{label_name(name): frozenset(values) for name, values in LABELS.items() if not isinstance(values, str)},
    "vscan_status": frozenset(code.name for code in grpc.StatusCode),
    "rpc_method": frozenset(
        f"/{service.full_name}/{method.name}"
        for service in (*decoder_pb2.DESCRIPTOR.services_by_name.values(), *encoder_pb2.DESCRIPTOR.services_by_name.values())
        for method in service.methods
    ),
}


def wrong_values(selection: Selection) -> list[str]:
    """Values that a selector asks for and no series has."""
    return [
        f"{matcher.label} is never {value!r}"
        for matcher in selection.matchers
        if matcher.label in VALUES
        for value in (matcher.value.split("|") if "~" in matcher.operator else [matcher.value])
        if value not in VALUES[matcher.label]
    ]


def problems(text: str) -> list[str]:
    """What an expression asks for that nobody serves or records."""
    names = names_in(text)
    unknown = [f"no metric {one.metric!r}" for one in names.selections if one.metric not in KNOWN]
    known = [one for one in names.selections if one.metric in KNOWN]
    wrong = [f"{one.metric} has no label {label!r}" for one in known for label in sorted(one.labels - KNOWN[one.metric])]
    wrong += [problem for one in known for problem in wrong_values(one)]
    anywhere = frozenset[str]().union(*(KNOWN[one.metric] for one in known))
    return unknown + wrong + [f"nothing here has a label {label!r}" for label in sorted(names.labels - anywhere)]


@pytest.mark.parametrize("expression", all_expressions(), ids=lambda one: one.place)
def test_an_expression_asks_for_what_there_is(expression: Expression) -> None:
    assert problems(expression.text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("rate(vscan_request_total[5m])", "no metric 'vscan_request_total'"),
        ('rate(vscan_requests_total{vscan_state="OK"}[5m])', "vscan_requests_total has no label 'vscan_state'"),
        ("sum by (vscan_tier) (vscan_cache_lookups_total)", "nothing here has a label 'vscan_tier'"),
        ('{job="a"}', "no metric ''"),
        ('vscan_cache_leases_total{vscan_cache_lease=~"led|stolen"}', "vscan_cache_lease is never 'stolen'"),
        ('vscan_requests_total{rpc_method="/vscan.v1.Decoder/Answer"}', "rpc_method is never '/vscan.v1.Decoder/Answer'"),
        ('vscan_requests_total{vscan_status!="FINE"}', "vscan_status is never 'FINE'"),
        ("namespace:vscan_first_tokens:rate10m", "no metric 'namespace:vscan_first_tokens:rate10m'"),
        ('namespace:vscan_first_tokens:rate5m{job="a"}', "namespace:vscan_first_tokens:rate5m has no label 'job'"),
    ],
)
def test_what_there_is_not_is_noticed(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_a_name_is_recorded_once_and_says_its_level() -> None:
    names = [rule["record"] for group in groups() for rule in group["rules"] if "record" in rule]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+:vscan_[a-z_]+:[a-z0-9_]+", name) for name in names)
    assert {part for name in names for part in name.partition(":")[0].split("_")} <= set(LEVELS)


@pytest.mark.parametrize("name", [name for name in recorded() if re.search(r"rate\d+[mhd]$", name)])
def test_a_name_says_the_window_that_it_looks_at(name: str) -> None:
    """Of what is recorded over 5 minutes the window is that of what it is made of."""
    (window,) = re.findall(r"rate(\d+[mhd])$", name)
    of_parts = {"5m"} if any(part.endswith(":rate5m") for part in names_in(recorded()[name]).metrics) else set()
    ranges = set(re.findall(r"\[(\w+)\]", recorded()[name]))
    assert ranges == {window} or (not ranges and of_parts == {window})


@pytest.mark.parametrize(
    "alert", [alert for alert in alerts() if "window" in alert["labels"]], ids=lambda one: str(one["labels"])
)
def test_a_burn_alert_says_the_window_that_it_looks_at(alert: dict[str, Any]) -> None:
    window = alert["labels"]["window"]
    assert f":ratio_rate{window} > " in alert["expr"].splitlines()[0]
    assert f"[{window}]) > 1 / " in alert["expr"]
    assert f"of the last {window} " in alert["annotations"]["description"]


def test_the_threshold_of_first_tokens_is_an_edge_of_its_histogram() -> None:
    (edge,) = set(re.findall(r'le=~"(\d+)\(\[\.\]0\)\?"', (PROMETHEUS / "recording.rules.yml").read_text()))
    assert float(edge) in (METRIC_TIME_TO_FIRST_TOKEN.bounds or ())
    assert METRIC_GIVEN_UP.bounds == METRIC_TIME_TO_FIRST_TOKEN.bounds
    assert f"later than {edge} s" in (PROMETHEUS / "alerts.rules.yml").read_text()


@pytest.mark.parametrize("alert", alerts(), ids=lambda one: one["alert"] + one["labels"].get("window", ""))
def test_an_alert_says_what_it_is_and_what_to_do(alert: dict[str, dict[str, str]]) -> None:
    assert alert["labels"]["severity"] in {"page", "ticket"}
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/operations.md#{str(alert['alert']).lower()}"
    assert f"### {alert['alert']}\n" in (ROOT / "docs" / "operations.md").read_text()
    assert "{{ $" in annotations["description"] or "absent(" in str(alert["expr"])


def test_no_section_is_left_of_an_alert_that_is_gone() -> None:
    sections = re.findall(r"^### (VScan\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert sorted(sections) == sorted({alert["alert"] for alert in alerts()})


def test_the_page_names_settings_that_there_are() -> None:
    named = re.findall(
        r"`(?:VSCAN_(?:ENCODER|DECODER|GATEWAY|PAGE)_)?([A-Z][A-Z_]{3,})(?:=[^`]*)?`",
        (ROOT / "docs" / "operations.md").read_text(),
    )
    classes = (EncoderSettings, DecoderSettings, GatewaySettings, PageSettings)
    known = {name.upper() for settings in classes for name in settings.model_fields}
    assert {"MAX_STEP_ROWS", "IMAGE_WORKERS"} <= set(named)
    others = {"SLOWLOG"}  # a command of Redis
    assert {name for name in named if not name.startswith("OTEL_") and not name.endswith("_")} - known == others


def test_the_scraped_ports_are_those_of_the_page() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets["vscan-encoder"] == ["encoder:9465"]
    assert targets["vscan-decoder"] == ["decoder:9464"]
    assert targets["vscan-gateway"] == ["gateway:9466"]
    assert set(config["rule_files"]) == {path.name for path in PROMETHEUS.glob("*.rules.yml")}
    page = (ROOT / "docs" / "operations.md").read_text()
    assert "`9465`" in page
    assert "`9464`" in page
    assert "`9466`" in page


def test_the_readme_names_every_file() -> None:
    readme = (OBSERVABILITY / "README.md").read_text()
    files = [path for path in OBSERVABILITY.rglob("*") if path.is_file() and path.name != "README.md"]
    missing = [str(path.relative_to(OBSERVABILITY)) for path in files if f"`{path.relative_to(OBSERVABILITY)}`" not in readme]
    assert missing == []
