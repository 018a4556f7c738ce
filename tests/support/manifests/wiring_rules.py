"""Rules on what refers to something else: settings, mounts, selectors, targets, namespaces, metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from scripts.observability.promql import names_in
from tests.support.manifests.objects import (
    ALL_SERVICES,
    CLUSTER_KINDS,
    Object,
    all_containers,
    containers,
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
from vscan.config import variable_name
from vscan.telemetry.names import all_metrics
from vscan.telemetry.prometheus_names import series_names

_OF_PROMETHEUS = {"up"}  # it makes this one itself, of whatever it scrapes


def known_settings(objects: list[Object]) -> list[str]:
    """Each variable of the project's is a setting of the service that it is given to, and given once."""
    faults = []
    known = {name: {variable_name(kind, field) for field in kind.model_fields} for name, kind in ALL_SERVICES.items()}
    for where, _, container in all_containers(objects):
        names = [variable["name"] for variable in container.get("env", [])]
        faults += [f"{where}: {name} is given twice" for name in sorted({name for name in names if names.count(name) > 1})]
        ours = [name for name in names if name.startswith("VSCAN_")]
        faults += [f"{where}: no setting {name}" for name in ours if name not in known.get(container["name"], set())]
    return faults


def expanded_variables(objects: list[Object]) -> list[str]:
    """`$(NAME)` in a value is a variable before it in the list: one after it would stay as it is written."""
    faults = []
    for where, _, container in all_containers(objects):
        before: set[str] = set()
        for variable in container.get("env", []):
            used = set(re.findall(r"\$\((\w+)\)", variable.get("value") or ""))
            faults += [f"{where}: {variable['name']} uses {name}, which is not there yet" for name in sorted(used - before)]
            before.add(variable["name"])
    return faults


def mounted_volumes(objects: list[Object]) -> list[str]:
    """Each mount has its volume, each volume its mount; secrets are read-only, not for everybody, and follow what changes."""
    faults = []
    for workload in workloads(objects):
        pod = pod_of(workload)
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounted = {mount["name"] for container in containers(pod) for mount in container.get("volumeMounts", [])}
        faults += [f"{title(workload)}: {name} is not both mounted and a volume" for name in sorted(set(volumes) ^ mounted)]
        for container in containers(pod):
            for mount in container.get("volumeMounts", []):
                volume = volumes.get(mount["name"], {})
                if "secret" in volume and not mount.get("readOnly"):
                    faults.append(f"{title(workload)}: {mount['name']} is not mounted read-only")
                if ("secret" in volume or "configMap" in volume) and ("subPath" in mount or "subPathExpr" in mount):
                    faults.append(f"{title(workload)}: {mount['name']} would stay as it was when the pod began")
        for name, volume in volumes.items():
            if "secret" in volume and volume["secret"].get("defaultMode") != 0o440:
                faults.append(f"{title(workload)}: everybody may read {name}")
    return faults


def files_of_settings(objects: list[Object]) -> list[str]:
    """A setting that is a path lies in something that is mounted, under a name that will be there."""
    faults = []
    for name, pod, container in services(objects):
        for field, value in own_settings(name, container).items():
            is_path = field == "model" or field.endswith("_file")
            if is_path and not file_is_there(objects, pod, container, value or ""):
                faults.append(f"{name}: nothing is mounted at {field}, {value}")
    return faults


def file_is_there(objects: list[Object], pod: Object, container: Object, path: str) -> bool:
    """Whether a mounted volume has such a file, as far as the manifests tell."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for mount in container.get("volumeMounts", []):
        if Path(path).is_relative_to(mount["mountPath"]):
            volume = volumes[mount["name"]]
            return _has_file(objects, volume, str(Path(path).relative_to(mount["mountPath"])))
    return False


def _has_file(objects: list[Object], volume: Object, name: str) -> bool:
    source = volume.get("secret") or volume.get("configMap")
    if source is None:
        return "persistentVolumeClaim" in volume
    if items := source.get("items"):
        return name in {item["path"] for item in items}
    if "configMap" in volume:
        return name in named(objects, "ConfigMap", source["name"])["data"]
    if source["secretName"] in certificate_secrets(objects):
        return name in {"tls.crt", "tls.key", "ca.crt"}
    return True  # a secret that the operator makes; whether the pages say how is another rule's


def certificate_secrets(objects: list[Object]) -> set[str]:
    """The secrets that cert-manager makes."""
    return {one["spec"]["secretName"] for one in of_kind(objects, "Certificate")}


def foreign_names(objects: list[Object]) -> set[str]:
    """Secrets and ConfigMaps that something reads and nothing here makes: the operator must."""
    made = {one["metadata"]["name"] for one in of_kind(objects, "Secret", "ConfigMap")} | certificate_secrets(objects)
    return {name for name in _read_names(objects) if name not in made}


def _read_names(objects: list[Object]) -> Iterator[str]:
    for workload in workloads(objects):
        pod = pod_of(workload)
        for volume in pod.get("volumes", []):
            if "secret" in volume:
                yield volume["secret"]["secretName"]
            if "configMap" in volume:
                yield volume["configMap"]["name"]
        for container in containers(pod):
            for variable in container.get("env", []):
                source = variable.get("valueFrom", {})
                yield from (source[kind]["name"] for kind in ("configMapKeyRef", "secretKeyRef") if kind in source)
    for monitor in of_kind(objects, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            tls = endpoint.get("tlsConfig", {})
            yield from (tls[part]["secret"]["name"] for part in ("ca", "cert") if part in tls)
            if "keySecret" in tls:
                yield tls["keySecret"]["name"]
    for issuer in of_kind(objects, "Issuer"):
        if "ca" in issuer["spec"]:
            yield issuer["spec"]["ca"]["secretName"]


def volume_claims(objects: list[Object]) -> list[str]:
    """Each claim that a pod names is made here, for pods on several nodes where several workloads name it."""
    claims = {one["metadata"]["name"]: one["spec"]["accessModes"] for one in of_kind(objects, "PersistentVolumeClaim")}
    named_by = [
        (volume["persistentVolumeClaim"]["claimName"], title(workload))
        for workload in workloads(objects)
        for volume in pod_of(workload).get("volumes", [])
        if "persistentVolumeClaim" in volume
    ]
    faults = [f"{workload}: no claim {name}" for name, workload in named_by if name not in claims]
    shared = {name for name, _ in named_by if [one for one, _ in named_by].count(name) > 1}
    return faults + [f"{name}: for one node" for name in sorted(shared) if "ReadWriteMany" not in claims.get(name, [])]


def selectors(objects: list[Object]) -> list[str]:
    """Deployments own their pods and no others'; budgets and issuers' references lead somewhere."""
    faults = []
    for workload in of_kind(objects, "Deployment"):
        found = [one for one in workloads(objects) if matches(workload["spec"]["selector"], pod_labels(one))]
        if found != [workload]:
            faults.append(f"{title(workload)}: selects {[title(one) for one in found]}")
    faults += [
        f"{title(budget)}: protects nothing"
        for budget in of_kind(objects, "PodDisruptionBudget")
        if not any(matches(budget["spec"]["selector"], pod_labels(one)) for one in workloads(objects))
    ]
    issuers = {one["metadata"]["name"] for one in of_kind(objects, "Issuer")}
    faults += [
        f"{title(certificate)}: no issuer {issuer}"
        for certificate in of_kind(objects, "Certificate")
        if (issuer := certificate["spec"]["issuerRef"]["name"]) not in issuers
    ]
    return faults


def scaled_targets(objects: list[Object]) -> list[str]:
    """An autoscaler's target is here, has one autoscaler, and no number of replicas of its own."""
    faults = []
    scalers = of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject")
    targets = [(one["spec"]["scaleTargetRef"]["kind"], one["spec"]["scaleTargetRef"]["name"]) for one in scalers]
    for scaler, (kind, name) in zip(scalers, targets, strict=True):
        found = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
        if not found:
            faults.append(f"{title(scaler)}: no {kind} {name}")
        if any("replicas" in one["spec"] for one in found):
            faults.append(f"{kind}/{name}: each apply would set the replicas that {title(scaler)} has chosen")
        if targets.count((kind, name)) > 1:
            faults.append(f"{kind}/{name}: two autoscalers")
    return faults


def one_namespace(objects: list[Object]) -> list[str]:
    """All is in the namespace that is made here, and names that hold a namespace hold that one."""
    names = [one["metadata"]["name"] for one in of_kind(objects, "Namespace")]
    if len(names) != 1:
        return [f"{len(names)} namespaces"]
    faults = [
        f"{title(one)}: in {one['metadata'].get('namespace')}"
        for one in objects
        if one["kind"] not in CLUSTER_KINDS and one["metadata"].get("namespace") != names[0]
    ]
    for certificate in of_kind(objects, "Certificate"):
        longer = [name for name in certificate["spec"].get("dnsNames", []) if "." in name]
        faults += [f"{title(certificate)}: {name}" for name in longer if name.split(".")[1] != names[0]]
    for where, query in queries(objects):
        if set(re.findall(r'namespace="([^"]*)"', query)) - set(names):
            faults.append(f"{where}: asks about another namespace")
    return faults


def queries(objects: list[Object]) -> Iterator[tuple[str, str]]:
    """(where, PromQL) of each autoscaler of KEDA."""
    for scaler in of_kind(objects, "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            yield title(scaler), trigger["metadata"]["query"]


def emitted_metrics(objects: list[Object]) -> list[str]:
    """Each metric that an autoscaler of KEDA asks for is one that the services emit, of the pods that it scales."""
    return [f"{where}: nobody emits {name}" for where, query in queries(objects) for name in unknown_metrics(query)]


def unknown_metrics(query: str) -> set[str]:
    """Metrics in PromQL that are neither Prometheus' own nor series of ours."""
    known = {name for metric in all_metrics() for name in series_names(metric)}
    return set(names_in(query).metrics) - known - _OF_PROMETHEUS


RULES = (
    known_settings,
    expanded_variables,
    mounted_volumes,
    files_of_settings,
    volume_claims,
    selectors,
    scaled_targets,
    one_namespace,
    emitted_metrics,
)
