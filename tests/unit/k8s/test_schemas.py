"""Everything fits the API's schemas, those of other projects' kinds too; a field that does not exist fits none."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from scripts.protos import ROOT
from tests.support.manifests.objects import Object, of_kind, title
from tests.support.manifests.rendering import APPLIED, PARTS, rendered

CRDS = ROOT / "tests" / "data" / "crds"
# The oldest release with all that is used (gRPC probes, `matchLabelKeys`, `unhealthyPodEvictionPolicy`), and the newest known.
RELEASES = ["1.27", kubernetes_validate.latest_version()]
KINDS = {
    "Namespace",
    "ServiceAccount",
    "Service",
    "ConfigMap",
    "PersistentVolumeClaim",
    "Deployment",
    "Job",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "HorizontalPodAutoscaler",
    "ScaledObject",
    "ServiceMonitor",
    "PrometheusRule",
    "Certificate",
    "Issuer",
}


def check(found: Object, release: str) -> None:
    """Raises ValidationError, of whichever library."""
    if (schema := crd(found["kind"])) is not None:
        schema.validate(found)
    else:
        kubernetes_validate.validate(found, release, strict=True)


@cache
def crd(kind: str) -> Any:
    path = CRDS / f"{kind}.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text())) if path.is_file() else None


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", [*APPLIED, *PARTS])
def test_it_fits(name: str, release: str) -> None:
    for found in rendered(name):
        if problem := _problem(json.dumps(found, sort_keys=True), release):
            pytest.fail(f"{title(found)}: {problem}")


@cache
def _problem(found: str, release: str) -> str:
    """Most objects are in many renderings: each is looked at once."""
    try:
        check(json.loads(found), release)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return str(error)
    return ""


def example(kind: str) -> Object:
    """One of that kind."""
    for name in (*APPLIED, *PARTS):
        if found := of_kind(rendered(name), kind):
            return found[0]
    raise AssertionError(f"nothing is a {kind}")


def test_these_are_the_kinds_there_are() -> None:
    assert {found["kind"] for name in (*APPLIED, *PARTS) for found in rendered(name)} == KINDS
    assert {path.stem for path in CRDS.glob("*.json")} <= KINDS


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_field_that_does_not_exist_fits_nowhere(kind: str, release: str) -> None:
    body = {"ServiceAccount": None, "ConfigMap": None, "Namespace": "metadata"}.get(kind, "spec")
    wrong = example(kind)
    check(wrong, release)
    (wrong[body] if body else wrong)["replica"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(wrong, release)


def _deep(*way: str | int) -> Callable[[Object], None]:
    """Adds a field that does not exist, further in."""

    def change(found: Object) -> None:
        inner: Any = found["spec"]
        for step in way:
            inner = inner[step]
        inner["certain"] = "yes"

    return change


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("Deployment", _deep("template", "spec", "containers", 0, "livenessProbe")),
        ("NetworkPolicy", _deep("podSelector")),
        ("ScaledObject", _deep("advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown")),
        ("ScaledObject", _deep("triggers", 0)),
        ("ScaledObject", lambda found: found["spec"].update(minReplicaCount="2")),
        ("ScaledObject", lambda found: found.update(apiVersion="keda.sh/v1")),
        ("ServiceMonitor", _deep("endpoints", 0)),
        ("ServiceMonitor", lambda found: found["spec"]["endpoints"][0].update(interval="a while")),
        ("ServiceMonitor", lambda found: found["spec"].pop("selector")),
        ("PrometheusRule", _deep("groups", 0, "rules", 0)),
        ("Certificate", _deep("issuerRef")),
        ("Certificate", lambda found: found["spec"]["usages"].append("serve")),
        ("Issuer", _deep("ca")),
    ],
)
def test_neither_does_one_further_in_or_a_wrong_value(kind: str, change: Callable[[Object], None]) -> None:
    wrong = example(kind)
    change(wrong)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(wrong, RELEASES[-1])
