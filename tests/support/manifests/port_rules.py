"""Rules on ports: each that a manifest names is one that something listens on."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from tests.support.manifests.network import ports_of_rule
from tests.support.manifests.objects import (
    ALL_SERVICES,
    SERVICES,
    Object,
    matches,
    named,
    of_kind,
    own_settings,
    pod_labels,
    pod_of,
    services,
    title,
    workloads,
)

_OPTIONAL = set(ALL_SERVICES) - set(SERVICES)  # monitoring has theirs, wherever it is


def listened_ports(objects: list[Object], workload: Object) -> set[int]:
    """The ports that a workload's settings, arguments or configuration open."""
    name = workload["metadata"]["name"]
    for service, _, container in services(objects):
        if service == name:
            binds = {key: value or "" for key, value in own_settings(name, container).items() if key.endswith("bind")}
            return {int(value.rpartition(":")[2]) for value in binds.values()}
    if name == "redis":
        arguments = pod_of(workload)["containers"][0]["args"]
        options = dict(zip(arguments[::2], arguments[1::2], strict=True))
        return {int(options.get("--port", 6379)), int(options.get("--tls-port", 0))} - {0}
    if name == "otel-collector":
        return set(collector_ports(objects))
    return set()


def collector_ports(objects: list[Object]) -> Iterator[int]:
    """Every `endpoint: 0.0.0.0:PORT` of the collector's configuration."""
    for text in named(objects, "ConfigMap", "otel-collector")["data"].values():
        configuration = yaml.safe_load(text)
        for section in ("extensions", "receivers", "exporters"):
            yield from _bound(configuration.get(section) or {})


def _bound(value: object) -> Iterator[int]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _bound(inner)
    elif isinstance(value, str) and value.startswith("0.0.0.0:"):
        yield int(value.rpartition(":")[2])


def container_ports(workload: Object) -> dict[str, int]:
    """By name."""
    return {port["name"]: port["containerPort"] for one in pod_of(workload)["containers"] for port in one.get("ports", [])}


def declared_ports(objects: list[Object]) -> list[str]:
    """A container declares the ports that it opens, and no others."""
    return [
        f"{title(workload)}: declares {sorted(container_ports(workload).values())}, opens {sorted(opened)}"
        for workload in workloads(objects)
        if set(container_ports(workload).values()) != (opened := listened_ports(objects, workload))
    ]


def service_ports(objects: list[Object]) -> list[str]:
    """A Service finds pods, and its target port is one of theirs, under the same number."""
    faults = []
    for service in of_kind(objects, "Service"):
        found = [one for one in workloads(objects) if matches({"matchLabels": service["spec"]["selector"]}, pod_labels(one))]
        if len(found) != 1:
            faults.append(f"{title(service)}: finds the pods of {[title(one) for one in found]}")
            continue
        ports = container_ports(found[0])
        faults += [
            f"{title(service)}: {port['name']} leads to {ports.get(port['targetPort'])}"
            for port in service["spec"]["ports"]
            if ports.get(port["targetPort"]) != port["port"]
        ]
    return faults


def probe_ports(objects: list[Object]) -> list[str]:
    """A probe asks a port that its container opens."""
    faults = []
    for workload in workloads(objects):
        ports = container_ports(workload)
        for container in pod_of(workload)["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                asked = [
                    handler.get("port")
                    for kind, handler in container.get(probe, {}).items()
                    if kind in ("grpc", "httpGet", "tcpSocket")
                ]
                faults += [
                    f"{title(workload)}: {probe} asks {port}"
                    for port in asked
                    if port not in ports and port not in ports.values()
                ]
    return faults


def policy_ports(objects: list[Object]) -> list[str]:
    """A port that a NetworkPolicy lets through is open at one of the pods it leads to, where those are here; out by number."""
    faults = []
    for policy in of_kind(objects, "NetworkPolicy"):
        own = [one for one in workloads(objects) if matches(policy["spec"]["podSelector"], pod_labels(one))]
        if not own and policy["spec"]["podSelector"]:
            faults.append(f"{title(policy)}: is about no pod")
        for rule in policy["spec"].get("ingress", []):
            faults += _unopened(policy, rule, own)
        for rule in policy["spec"].get("egress", []):
            faults += [
                f"{title(policy)}: out to a port by name, {port}" for port, _ in ports_of_rule(rule) if isinstance(port, str)
            ]
            here = [peer for peer in rule.get("to", []) if "podSelector" in peer and "namespaceSelector" not in peer]
            targets = [one for one in workloads(objects) if any(matches(peer["podSelector"], pod_labels(one)) for peer in here)]
            if here and not targets:
                faults.append(f"{title(policy)}: leads to no pod")
            if targets:
                faults += _unopened(policy, rule, targets)
    return faults


def _unopened(policy: Object, rule: Object, targets: list[Object]) -> list[str]:
    opened = [container_ports(target) for target in targets]
    return [
        f"{title(policy)}: no pod of {[title(target) for target in targets]} opens {port}"
        for port, _ in ports_of_rule(rule)
        if not any(port in ports or port in ports.values() for ports in opened)
    ]


def monitored_ports(objects: list[Object]) -> list[str]:
    """A ServiceMonitor finds one Service, and the port that it names; over TLS where the pods have any, else without."""
    faults = []
    for monitor in of_kind(objects, "ServiceMonitor"):
        found = [one for one in of_kind(objects, "Service") if matches(monitor["spec"]["selector"], one["metadata"]["labels"])]
        if not found and monitor["metadata"]["name"] in _OPTIONAL - {name for name, _, _ in services(objects)}:
            continue
        if len(found) != 1:
            faults.append(f"{title(monitor)}: finds {[title(one) for one in found]}")
            continue
        name = found[0]["metadata"]["name"]
        settings = {service: own_settings(service, container) for service, _, container in services(objects)}.get(name, {})
        scheme = "https" if "tls_cert_file" in settings else "http"
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in {port["name"] for port in found[0]["spec"]["ports"]}:
                faults.append(f"{title(monitor)}: no port {endpoint['port']}")
            if endpoint.get("scheme", "http") != scheme:
                faults.append(f"{title(monitor)}: speaks no {scheme}")
            if ("tls_client_ca_file" in settings) != ("cert" in endpoint.get("tlsConfig", {})):
                faults.append(f"{title(monitor)}: shows a certificate where none is asked for, or none where one is")
    return faults


RULES = (declared_ports, service_ports, probe_ports, policy_ports, monitored_ports)
