"""What NetworkPolicies let through, worked out as the API defines it.

A connection is let through when the policies of its source let it out and those of its target let it in. A pod that no policy
selects X without peers all, without ports all. (https://kubernetes.io/docs/concepts/services-networking/network-policies/)
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.support.manifests.objects import Object, matches, of_kind, pod_labels, pod_of, title, workloads


@dataclass(frozen=True)
class Place:
    """A pod, or something outside the cluster: that has an address and no namespace."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    namespace_labels: dict[str, str] = field(default_factory=dict)
    address: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def is_pod(self) -> bool:
        return bool(self.namespace)


def pods_of(objects: list[Object]) -> dict[str, Place]:
    """A pod of each workload, by the workload's name."""
    (namespace,) = of_kind(objects, "Namespace")
    name = namespace["metadata"]["name"]
    labels = {**namespace["metadata"].get("labels", {}), "kubernetes.io/metadata.name": name}
    return {
        workload["metadata"]["name"]: Place(
            title(workload), pod_labels(workload), workload["metadata"].get("namespace", ""), labels, ports=_ports(workload)
        )
        for workload in workloads(objects)
    }


def _ports(workload: Object) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for one in pod_of(workload)["containers"] for port in one.get("ports", [])}


def is_allowed(objects: list[Object], source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection gets through."""
    policies = of_kind(objects, "NetworkPolicy")
    return _passes(policies, "Egress", source, target, target, port, protocol) and _passes(
        policies, "Ingress", target, source, target, port, protocol
    )


def _passes(
    policies: list[Object], direction: str, selected: Place, peer: Place, target: Place, port: int, protocol: str
) -> bool:
    own = [policy for policy in policies if direction in _types(policy["spec"]) and _selects(policy, selected)]
    way = direction.lower()
    peers = {"ingress": "from", "egress": "to"}[way]
    return not own or any(
        _peer_passes(policy, rule.get(peers), peer) and _port_passes(rule, target, port, protocol)
        for policy in own
        for rule in policy["spec"].get(way) or []
    )


def _types(spec: Object) -> list[str]:
    return list(spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])])


def _selects(policy: Object, place: Place) -> bool:
    return (
        place.is_pod
        and policy["metadata"]["namespace"] == place.namespace
        and matches(policy["spec"]["podSelector"], place.labels)
    )


def _peer_passes(policy: Object, peers: list[Object] | None, place: Place) -> bool:
    return not peers or any(_is_peer(policy, peer, place) for peer in peers)


def _is_peer(policy: Object, peer: Object, place: Place) -> bool:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        return (
            not place.is_pod
            and _within(place.address, block["cidr"])
            and not any(_within(place.address, cidr) for cidr in block.get("except", []))
        )
    if not place.is_pod:
        return False
    if "namespaceSelector" in peer:
        at_home = matches(peer["namespaceSelector"], place.namespace_labels)
    else:
        at_home = policy["metadata"]["namespace"] == place.namespace
    return at_home and matches(peer.get("podSelector", {}), place.labels)


def _within(address: str, cidr: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(cidr)


def _port_passes(rule: Object, target: Place, port: int, protocol: str) -> bool:
    allowed = list(ports_of_rule(rule))
    return not rule.get("ports") or any(
        protocol == its_protocol and port == (target.ports.get(its_port) if isinstance(its_port, str) else its_port)
        for its_port, its_protocol in allowed
    )


def ports_of_rule(rule: Object) -> Iterator[tuple[int | str, str]]:
    """(number or name, protocol) of each port that a rule names."""
    for port in rule.get("ports") or []:
        if "endPort" in port or "port" not in port:
            raise ValueError(f"not worked out here: {port}")
        yield port["port"], port.get("protocol", "TCP")
