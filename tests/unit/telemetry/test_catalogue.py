"""What readers are told of metrics, spans and log lines is what the code can say, and all of it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from vscan.cache.entry import Flaw
from vscan.cache.place import Place
from vscan.cache.recorder import LeaseOutcome, Outcome, Tier
from vscan.cache.redis_link import Access, Operation
from vscan.telemetry import names
from vscan.telemetry.catalogue import LABELS, LOG_FIELDS, SPANS
from vscan.telemetry.names import all_metrics

ROOT = Path(__file__).parents[3]
GEN_AI = [metric for metric in all_metrics() if metric.name.startswith("gen_ai.")]
OF_CALLS = {names.ATTR_RPC_STATUS_CODE}  # of gRPC's own spans, which are not listed
PLACES = [place.name.lower() for place in Place if place is not Place.UNSPECIFIED]


def test_every_attribute_of_a_metric_has_its_values_or_its_bound() -> None:
    assert LABELS.keys() == {name for metric in all_metrics() for name in (*metric.attributes, *metric.sometimes)}


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        (names.ATTR_CACHE_TIER, Tier),
        (names.ATTR_CACHE_RESULT, Outcome),
        (names.ATTR_CACHE_FLAW, Flaw),
        (names.ATTR_REDIS_OPERATION, Operation),
        (names.ATTR_REDIS_ACCESS, Access),
        (names.ATTR_LEASE_OUTCOME, LeaseOutcome),
        (names.ATTR_PLACE, PLACES),
    ],
)
def test_values_are_those_of_the_code(attribute: str, values: Iterable[str]) -> None:
    assert set(LABELS[attribute]) == {str(value) for value in values}


def test_every_span_is_listed_once_below_others_that_are() -> None:
    stated = {value for name, value in vars(names).items() if name.startswith("SPAN_")}
    assert sorted(span.name for span in SPANS) == sorted(stated)
    assert {parent for span in SPANS for parent in span.parents} <= stated


def test_every_attribute_is_one_of_a_span_or_of_a_metric() -> None:
    stated = {value for name, value in vars(names).items() if name.startswith("ATTR_")}
    assert stated == {name for span in SPANS for name in span.attributes} | LABELS.keys() | OF_CALLS


def test_every_field_that_is_added_to_a_line_is_listed() -> None:
    files = [path for folder in ("vscan", "encoder_service", "decoder_service") for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    calls = [call for call in nodes if isinstance(call.func, ast.Name) and call.func.id == "add_request_fields"]
    added = {str(keyword.arg) for call in calls for keyword in call.keywords}
    assert len(added) > 15
    assert added <= LOG_FIELDS.keys()


@pytest.mark.parametrize("metric", GEN_AI, ids=lambda metric: metric.name)
def test_metrics_of_the_conventions_have_what_these_require(metric: names.Metric) -> None:
    required = {names.ATTR_GEN_AI_OPERATION, names.ATTR_GEN_AI_PROVIDER, names.ATTR_GEN_AI_REQUEST_MODEL}
    assert required <= set(metric.attributes)
    assert metric.unit in ("s", "{token}")


def test_first_tokens_can_be_held_to_usual_objectives() -> None:
    assert {0.2, 0.5, 1, 2} <= set(names.METRIC_TIME_TO_FIRST_TOKEN.bounds or ())
