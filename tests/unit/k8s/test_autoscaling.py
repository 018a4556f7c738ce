"""Both kinds of autoscaler ask for what is emitted, and behave alike."""

from __future__ import annotations

import re

import pytest

from scripts.observability.promql import names_in
from tests.support.manifests.adapter import adapted_metrics
from tests.support.manifests.objects import SERVICES, named, pod_of
from tests.support.manifests.rendering import rendered
from tests.support.manifests.wiring_rules import unknown_metrics

KEDA = "overlays/production"
HPA = "production with autoscaling-hpa"


@pytest.mark.parametrize("name", SERVICES)
def test_a_pods_metric_is_made_by_the_adapter_from_what_is_emitted(name: str) -> None:
    (metric,) = named(rendered(HPA), "HorizontalPodAutoscaler", name)["spec"]["metrics"]
    series, query = adapted_metrics()[metric["pods"]["metric"]["name"]]
    assert series.startswith(f"vscan_{name}_")
    assert unknown_metrics(query) == set()
    assert unknown_metrics(query.replace(series, f"{series}s")) == {f"{series}s"}


def test_the_adapter_makes_nothing_that_is_not_asked_for() -> None:
    objects = rendered(HPA)
    asked = {
        named(objects, "HorizontalPodAutoscaler", name)["spec"]["metrics"][0]["pods"]["metric"]["name"] for name in SERVICES
    }
    assert asked == set(adapted_metrics())


@pytest.mark.parametrize("name", SERVICES)
def test_both_kinds_want_the_same(name: str) -> None:
    keda = named(rendered(KEDA), "ScaledObject", name)["spec"]
    hpa = named(rendered(HPA), "HorizontalPodAutoscaler", name)["spec"]
    (trigger,) = keda["triggers"]
    (metric,) = hpa["metrics"]
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (hpa["minReplicas"], hpa["maxReplicas"])
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    assert trigger["metricType"] == metric["pods"]["target"]["type"] == "AverageValue"
    assert trigger["metadata"]["threshold"] == metric["pods"]["target"]["averageValue"]
    asked = names_in(trigger["metadata"]["query"]).metrics - {"up", "vscan_ready"}
    assert asked == {adapted_metrics()[metric["pods"]["metric"]["name"]][0]}


@pytest.mark.parametrize("name", SERVICES)
def test_where_prometheus_is_away_there_are_neither_too_few_nor_too_many(name: str) -> None:
    spec = named(rendered(KEDA), "ScaledObject", name)["spec"]
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["ignoreNullValues"] == "false"  # else an empty answer counts as 0, and scales down
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
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
        query = named(rendered(KEDA), "ScaledObject", name)["spec"]["triggers"][0]["metadata"]["query"]
        labels = {label for selection in names_in(query).selections for label in selection.labels}
        assert labels == {"namespace", "job"} or labels == {"namespace"}
        jobs = set(re.findall(r'job="(\w+)"', query))
        assert jobs == {name}  # the Operator calls a job by its Service
