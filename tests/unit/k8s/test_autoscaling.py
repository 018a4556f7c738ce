"""Both kinds of autoscaler ask for what is emitted, and behave alike."""

from __future__ import annotations

import re

import pytest

from scripts.observability.promql import names_in
from tests.support.manifests.adapter import adapted_metrics
from tests.support.manifests.objects import SERVICES, Object, named, pod_of
from tests.support.manifests.rendering import rendered
from tests.support.manifests.wiring_rules import unknown_metrics

KEDA = "overlays/production"
HPA = "production with autoscaling-hpa"


# What both kinds ask for: the first says when there are too few, the second how many are needed.
TOLERANCE = 0.1  # of the autoscaler's, where nobody changed it
OF_THE_SCRAPE = {"up", "vscan_ready"}


def _triggers(name: str) -> list[Object]:
    return list(named(rendered(KEDA), "ScaledObject", name)["spec"]["triggers"])


def _metrics(name: str) -> list[Object]:
    return [one["pods"] for one in named(rendered(HPA), "HorizontalPodAutoscaler", name)["spec"]["metrics"]]


@pytest.mark.parametrize("name", SERVICES)
def test_a_pods_metric_is_made_by_the_adapter_from_what_is_emitted(name: str) -> None:
    for metric in _metrics(name):
        series, query = adapted_metrics()[metric["metric"]["name"]]
        assert series.startswith(f"vscan_{name}_")
        assert unknown_metrics(query) == set()
        assert unknown_metrics(query.replace(series, f"{series}s")) == {f"{series}s"}


def test_the_adapter_makes_nothing_that_is_not_asked_for() -> None:
    assert {metric["metric"]["name"] for name in SERVICES for metric in _metrics(name)} == set(adapted_metrics())


@pytest.mark.parametrize("name", SERVICES)
def test_both_kinds_want_the_same(name: str) -> None:
    keda = named(rendered(KEDA), "ScaledObject", name)["spec"]
    hpa = named(rendered(HPA), "HorizontalPodAutoscaler", name)["spec"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    for trigger, metric in zip(_triggers(name), _metrics(name), strict=True):
        assert trigger["metricType"] == metric["target"]["type"] == "AverageValue"
        assert trigger["metadata"]["threshold"] == metric["target"]["averageValue"]
        asked = names_in(trigger["metadata"]["query"]).metrics - OF_THE_SCRAPE
        assert asked == names_in(adapted_metrics()[metric["metric"]["name"]][1]).metrics


@pytest.mark.parametrize("name", SERVICES)
def test_a_short_wait_alone_takes_nothing_away(name: str) -> None:
    """Of the numbers the largest counts; one of them says how full those are that run, and asks for no more itself."""
    series = {"encoder": "vscan_encoder_pass_milliseconds_sum", "decoder": "vscan_decoder_running"}[name]
    assert [series in trigger["metadata"]["query"] for trigger in _triggers(name)] == [False, True]
    assert 1 < 100 / int(_triggers(name)[1]["metadata"]["threshold"]) < 1 + TOLERANCE


@pytest.mark.parametrize("name", SERVICES)
def test_where_prometheus_is_away_the_number_stays(name: str) -> None:
    spec = named(rendered(KEDA), "ScaledObject", name)["spec"]
    # Else an empty answer counts as 0, and scales down.
    assert {trigger["metadata"]["ignoreNullValues"] for trigger in spec["triggers"]} == {"false"}
    # KEDA sets a fallback's number at once, whatever `behavior` says of the pace: many replicas would be few under load.
    assert "fallback" not in spec
    assert spec["minReplicaCount"] >= 2  # a rollout takes one away


@pytest.mark.parametrize("name", SERVICES)
def test_one_pod_has_drained_before_the_next_is_taken(name: str) -> None:
    objects = rendered(KEDA)
    spec = named(objects, "ScaledObject", name)["spec"]
    (policy,) = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"]
    assert policy["type"] == "Pods"
    assert policy["value"] == 1
    assert policy["periodSeconds"] > pod_of(named(objects, "Deployment", name))["terminationGracePeriodSeconds"]


def test_a_query_groups_by_labels_that_scrapes_have() -> None:
    for name in SERVICES:
        for query in (trigger["metadata"]["query"] for trigger in _triggers(name)):
            labels = {label for selection in names_in(query).selections for label in selection.labels}
            assert labels == {"namespace", "job"}
            assert set(re.findall(r'job="(\w+)"', query)) == {name}  # the Operator calls a job by its Service
