"""Finds one's way in rendered objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from gateway_service.config import GatewaySettings
from vscan.config import ServiceSettings

Object = dict[str, Any]

# Those of a model, which every deployment has; and with those that a component adds.
SERVICES: dict[str, type[ServiceSettings]] = {"encoder": EncoderSettings, "decoder": DecoderSettings}
ALL_SERVICES: dict[str, type[ServiceSettings]] = {**SERVICES, "gateway": GatewaySettings}
CLUSTER_KINDS = {"Namespace"}


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Those of some kinds, in order."""
    return [found for found in objects if found["kind"] in kinds]


def named(objects: list[Object], kind: str, name: str) -> Object:
    """The one of that kind and name."""
    (found,) = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def title(found: Object) -> str:
    """`Kind/name`."""
    return f"{found['kind']}/{found['metadata']['name']}"


def workloads(objects: list[Object]) -> list[Object]:
    """All that makes pods."""
    return [found for found in objects if "template" in found.get("spec", {}) and "spec" in found["spec"]["template"]]


def pod_of(workload: Object) -> Object:
    """The spec of its pods."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def pod_labels(workload: Object) -> dict[str, str]:
    """Of its pods."""
    return dict(workload["spec"]["template"]["metadata"].get("labels", {}))


def containers(pod: Object) -> list[Object]:
    """Those that start it, and those that stay."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def all_containers(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """(where, pod, container) of every one."""
    for workload in workloads(objects):
        pod = pod_of(workload)
        for container in containers(pod):
            yield f"{title(workload)}: {container['name']}", pod, container


def services(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """(name, pod, container) of encoder and decoder, and of a gateway where there is one."""
    for workload in of_kind(objects, "Deployment"):
        name = workload["metadata"]["name"]
        if name in ALL_SERVICES:
            (container,) = [one for one in pod_of(workload)["containers"] if one["name"] == name]
            yield name, pod_of(workload), container


def model_services(objects: list[Object]) -> Iterator[tuple[str, Object, Object]]:
    """The same of encoder and decoder."""
    return (one for one in services(objects) if one[0] in SERVICES)


def environment(container: Object) -> dict[str, str | None]:
    """By name; None where the value comes from elsewhere."""
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def own_settings(name: str, container: Object) -> dict[str, str | None]:
    """A service's settings by field, as far as the manifest gives them."""
    prefix = f"VSCAN_{name.upper()}_"
    return {key.removeprefix(prefix).lower(): value for key, value in environment(container).items() if key.startswith(prefix)}


def matches(selector: Object | None, labels: dict[str, str]) -> bool:
    """A label selector; an empty one matches all, an absent one nothing."""
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _expression_holds(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _expression_holds(expression: Object, labels: dict[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"no such operator: {expression['operator']}")


_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}


def quantity(text: str | int) -> float:
    """`4Gi`, `250m`, `2`."""
    for suffix, factor in _BYTES.items():
        if str(text).endswith(suffix):
            return float(str(text).removesuffix(suffix)) * factor
    return float(text)
