"""Exactly which connections the policies let through, worked out from the manifests as Kubernetes defines it."""

from __future__ import annotations

from itertools import product

import pytest

from tests.support.manifests.network import Place, is_allowed, pods_of
from tests.support.manifests.objects import named
from tests.support.manifests.rendering import APPLIED, Objects, rendered

GUARDED = [name for name in APPLIED if name != "base"]
CLIENT_LABEL = {"vscan-client": "true"}


def _pod(name: str, namespace: str, labels: dict[str, str], **namespace_labels: str) -> Place:
    own = {
        "kubernetes.io/metadata.name": namespace,
        **{key.replace("_", "-"): value for key, value in namespace_labels.items()},
    }
    return Place(name, labels, namespace, own)


# Who is there beside the pods of the deployment.
AROUND = {
    "client": _pod("client", "shop", CLIENT_LABEL, vscan_client="true"),
    "client in the namespace itself": _pod("client in the namespace itself", "vscan", CLIENT_LABEL),
    "client where none may be": _pod("client where none may be", "lab", CLIENT_LABEL),
    "its neighbour": _pod("its neighbour", "shop", {}, vscan_client="true"),
    "stranger": _pod("stranger", "vscan", {}),
    "prometheus": _pod("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "tempo": _pod("tempo", "monitoring", {}),
    "dns": _pod("dns", "kube-system", {"k8s-app": "kube-dns"}),
    "another in kube-system": _pod("another in kube-system", "kube-system", {}),
    "a redis elsewhere": _pod(
        "a redis elsewhere", "shop", {"app.kubernetes.io/name": "redis", "app.kubernetes.io/part-of": "vscan"}
    ),
    "internet": Place("internet", address="93.184.216.34"),
    "private network": Place("private network", address="10.20.30.40"),
    "metadata of the cloud": Place("metadata of the cloud", address="169.254.169.254"),
}
GRPC = {"encoder": 7071, "decoder": 7070}
HEALTH = {"encoder": 7073, "decoder": 7072, "otel-collector": 13133}
METRICS = {"encoder": 9465, "decoder": 9464}
GATEWAY = 8000
SERVICES = ("encoder", "decoder")
PORTS = (53, 443, 4317, 6379, 7070, 7071, 7072, 7073, 8000, 8889, 9464, 9465, 9466, 13133, 26379)

Flow = tuple[str, str, int, str]


def expected(*, external_redis: bool = False, gateway: bool = True) -> set[Flow]:
    """The table: who may reach whom, at which port."""
    flows: set[Flow] = {
        ("client", "decoder", GRPC["decoder"], "TCP"),
        ("decoder", "encoder", GRPC["encoder"], "TCP"),
        ("otel-collector", "tempo", 4317, "TCP"),
        ("otel-collector", "prometheus", 4317, "TCP"),  # the whole namespace: what keeps traces is not known by name
    }
    if gateway:
        flows |= {("client", "gateway", GATEWAY, "TCP"), ("gateway", "decoder", GRPC["decoder"], "TCP")}
        flows |= {(source, "gateway", 9466, "TCP") for source in ("prometheus", "tempo")}
        flows |= {("gateway", "otel-collector", 4317, "TCP"), ("gateway", "dns", 53, "TCP"), ("gateway", "dns", 53, "UDP")}
    flows |= {(source, "otel-collector", 4317, "TCP") for source in SERVICES}
    if external_redis:
        flows |= {(source, "private network", port, "TCP") for source in SERVICES for port in (6379, 26379)}
    else:
        flows |= {(source, "redis", 6379, "TCP") for source in SERVICES}
    # A whole namespace may scrape.
    flows |= {(source, target, port, "TCP") for source in ("prometheus", "tempo") for target, port in METRICS.items()}
    flows |= {(source, "dns", 53, protocol) for source in (*SERVICES, "otel-collector") for protocol in ("TCP", "UDP")}
    return flows


def worked_out(objects: Objects) -> set[Flow]:
    """All flows that the policies let through, but for those to the ports for health, which `test_health…` has."""
    places = AROUND | pods_of(objects)
    inside = set(pods_of(objects))
    return {
        (source, target, port, protocol)
        for source, target, port, protocol in product(places, places, PORTS, ("TCP", "UDP"))
        if source != target and (source in inside or target in inside) and HEALTH.get(target) != port
        if is_allowed(objects, places[source], places[target], port, protocol)
    }


@pytest.mark.parametrize("name", GUARDED)
def test_these_connections_get_through_and_no_others(name: str) -> None:
    objects = rendered(name)
    gateway = "gateway" in pods_of(objects)
    assert gateway == (name not in ("overlays/gpu", "production without gateway"))
    assert worked_out(objects) == expected(external_redis="external-redis" in name, gateway=gateway)


@pytest.mark.parametrize("name", GUARDED)
def test_health_is_open_to_those_who_may_send_at_all(name: str) -> None:
    """The node's kubelet above all, which has no labels, wherever a network looks at it."""
    objects = rendered(name)
    pods = pods_of(objects)
    node = Place("node", address="192.0.2.1")
    for target, port in HEALTH.items():
        assert is_allowed(objects, node, pods[target], port)
        assert not is_allowed(objects, node, pods[target], 4317)


def test_nobody_else_reaches_anything() -> None:
    """What the table says by leaving it out, in words."""
    objects = rendered("overlays/production")
    pods = AROUND | pods_of(objects)
    for source, target, port in (
        ("client", "encoder", 7071),
        ("client", "redis", 6379),
        ("client", "decoder", 9464),
        ("client", "gateway", 9466),
        ("client where none may be", "gateway", 8000),
        ("stranger", "gateway", 8000),
        ("internet", "gateway", 8000),
        ("decoder", "gateway", 8000),
        ("gateway", "encoder", 7071),
        ("gateway", "redis", 6379),
        ("gateway", "internet", 443),
        ("client where none may be", "decoder", 7070),
        ("client in the namespace itself", "decoder", 7070),
        ("its neighbour", "decoder", 7070),
        ("stranger", "decoder", 7070),
        ("stranger", "encoder", 7073),  # open, but what is in the namespace may send nothing
        ("encoder", "decoder", 7070),
        ("decoder", "internet", 443),
        ("encoder", "internet", 443),
        ("decoder", "metadata of the cloud", 443),
        ("redis", "encoder", 7071),
        ("redis", "dns", 53),
        ("redis", "internet", 443),
        ("fill-model", "internet", 443),
        ("fill-model", "dns", 53),
        ("internet", "decoder", 7070),
        ("decoder", "a redis elsewhere", 6379),
        ("prometheus", "redis", 6379),
    ):
        assert not is_allowed(objects, pods[source], pods[target], port), f"{source} → {target}:{port}"


@pytest.mark.parametrize(
    "file", ["encoder", "decoder", "gateway", "redis", "redis-clients", "otel-collector", "dns", "default-deny"]
)
def test_without_one_of_the_policies_the_table_is_another(file: str) -> None:
    objects = rendered("overlays/production")
    objects.remove(named(objects, "NetworkPolicy", file))
    assert worked_out(objects) != expected()


def test_without_policies_everything_is_open() -> None:
    objects = rendered("base")
    places = AROUND | pods_of(objects)
    assert is_allowed(objects, places["client"], places["redis"], 6379)
    assert is_allowed(objects, places["decoder"], places["internet"], 443)


def _policy(**spec: object) -> Objects:
    return [{"kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "n"}, "spec": {"podSelector": {}, **spec}}]


A = Place("a", {"app": "a"}, "n", {"kubernetes.io/metadata.name": "n"})
B = Place("b", {"app": "b"}, "n", {"kubernetes.io/metadata.name": "n"}, ports={"web": 80})
FAR = Place("far", {"app": "a"}, "m", {"kubernetes.io/metadata.name": "m"})
OUTSIDE = Place("outside", address="192.0.2.7")


@pytest.mark.parametrize(
    ("spec", "source", "port", "passes"),
    [
        ({"policyTypes": ["Ingress"]}, A, 80, False),
        ({"policyTypes": ["Ingress"], "ingress": [{}]}, A, 80, True),  # a rule that says nothing passes everything
        ({"policyTypes": ["Ingress"], "ingress": [{"from": []}]}, FAR, 80, True),
        ({"policyTypes": ["Egress"], "podSelector": {"matchLabels": {"app": "b"}}}, A, 80, True),  # the other direction
        ({"ingress": [{"ports": [{"port": "web"}]}]}, A, 80, True),  # Ingress is meant where no type is named
        ({"ingress": [{"ports": [{"port": "web"}]}]}, A, 81, False),
        ({"ingress": [{"ports": [{"port": 80, "protocol": "UDP"}]}]}, A, 80, False),
        ({"ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}, FAR, 80, False),  # of its own namespace
        ({"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]}, FAR, 80, True),
        ({"ingress": [{"from": [{"podSelector": {}, "namespaceSelector": {}}]}]}, OUTSIDE, 80, False),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]}, OUTSIDE, 80, True),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/28"]}}]}]}, OUTSIDE, 80, False),
        (
            {"ingress": [], "podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["b"]}]}},
            A,
            80,
            True,
        ),
        ({"ingress": [], "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}, A, 80, False),
    ],
)
def test_it_is_worked_out_as_the_api_says(spec: dict[str, object], source: Place, port: int, passes: bool) -> None:
    assert is_allowed(_policy(**spec), source, B, port) is passes
