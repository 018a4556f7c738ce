"""The collector's configuration hangs together, as far as that can be told without a collector."""

from __future__ import annotations

import re
from typing import Any

import yaml

from scripts.observability.sources import OBSERVABILITY
from scripts.protos import ROOT
from vscan.errors import Cancelled
from vscan.telemetry.catalogue import SPANS

FOLDER = OBSERVABILITY / "otel-collector"
TEXT = (FOLDER / "config.yaml").read_text()
CONFIG: dict[str, Any] = yaml.safe_load(TEXT)
KINDS = ("receivers", "processors", "exporters")


def test_pipelines_name_what_is_defined_and_all_of_it() -> None:
    pipelines = CONFIG["service"]["pipelines"]
    for kind in KINDS:
        named = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert named == set(CONFIG[kind])
    assert CONFIG["service"]["extensions"] == list(CONFIG["extensions"])


def test_memory_is_limited_first_and_batches_are_made_last() -> None:
    """In another order refused data has been worked on, and sampling would see batches."""
    for pipeline in CONFIG["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


def test_every_variable_is_explained_with_its_default() -> None:
    for name, default in re.findall(r"\$\{env:(\w+):-([^}]*)\}", TEXT):
        assert re.search(rf"^# {name} .* {re.escape(default)}$", TEXT, re.MULTILINE), name
    assert not re.findall(r"\$\{env:\w+\}", TEXT)  # without a default it would be empty


def test_failed_and_slow_traces_are_kept() -> None:
    policies = {policy["type"]: policy for policy in CONFIG["processors"]["tail_sampling"]["policies"]}
    assert policies["status_code"]["status_code"]["status_codes"] == ["ERROR"]
    assert set(policies) == {"status_code", "ottl_condition", "probabilistic"}


def test_what_makes_a_trace_slow_stands_on_its_spans() -> None:
    """By the first token, as the objective: whole answers may take long."""
    (policy,) = [one for one in CONFIG["processors"]["tail_sampling"]["policies"] if one["name"] == "slow"]
    late, never = policy["ottl_condition"]["span"]
    spans = {span.name: span for span in SPANS}
    for condition in (late, never):
        (name,) = re.findall(r'\bname == "(\w+)"', condition)
        assert set(re.findall(r'attributes\["([^"]+)"\]', condition)) <= set(spans[name].attributes)
    assert late.endswith('attributes["vscan.time_to_first_token_ms"] > ${env:TRACES_SLOW_MS:-2000}')
    assert never.endswith(f'attributes["error.type"] == "{Cancelled.__name__}"')


def test_the_port_is_that_of_the_settings_example_and_of_the_readme() -> None:
    port = CONFIG["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].rpartition(":")[2]
    assert f"otel-collector:{port}" in (OBSERVABILITY / "README.md").read_text()
    assert f"http://127.0.0.1:{port}" in (ROOT / "docs" / "configuration.md").read_text()


def test_tls_is_added_where_the_receiver_is() -> None:
    added = yaml.safe_load((FOLDER / "tls.yaml").read_text())
    (receiver,) = added["receivers"]
    assert receiver in CONFIG["receivers"]
    assert set(added["receivers"][receiver]["protocols"]) == set(CONFIG["receivers"][receiver]["protocols"])
