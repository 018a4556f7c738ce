"""Rules on pods: each takes rendered objects and says what breaks it, one line each."""

from __future__ import annotations

from typing import Any

from tests.support.manifests.objects import (
    ALL_SERVICES,
    SERVICES,
    Object,
    all_containers,
    matches,
    model_services,
    named,
    of_kind,
    own_settings,
    pod_labels,
    pod_of,
    quantity,
    services,
    title,
    workloads,
)
from vscan.rpc.readiness import LIVENESS

# https://kubernetes.io/docs/concepts/security/pod-security-standards/: the profile "restricted", which includes "baseline".
_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SECCOMP = {"RuntimeDefault", "Localhost"}
_SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
_ENFORCED = "pod-security.kubernetes.io/enforce"
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def enforced_restriction(objects: list[Object]) -> list[str]:
    """The namespace has the cluster refuse what the rules on pods find."""
    return [
        f"{title(one)}: enforces {one['metadata'].get('labels', {}).get(_ENFORCED)}"
        for one in of_kind(objects, "Namespace")
        if one["metadata"].get("labels", {}).get(_ENFORCED) != "restricted"
    ]


def restricted_pods(objects: list[Object]) -> list[str]:
    """The Pod Security profile that the namespace enforces, on the pod."""
    faults = []
    for workload in workloads(objects):
        pod = pod_of(workload)
        context = pod.get("securityContext", {})
        faults += [f"{title(workload)}: {field}" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
        for volume in pod.get("volumes", []):
            if kinds := set(volume) - {"name"} - _VOLUMES:
                faults.append(f"{title(workload)}: volume {volume['name']} is a {', '.join(kinds)}")
        for sysctl in context.get("sysctls", []):
            if sysctl["name"] not in _SAFE_SYSCTLS:
                faults.append(f"{title(workload)}: sysctl {sysctl['name']}")
        faults += [f"{title(workload)}: {fault}" for fault in _context_faults(context)]
    return faults


def restricted_containers(objects: list[Object]) -> list[str]:
    """The Pod Security profile that the namespace enforces, on each container together with its pod."""
    faults = []
    for where, pod, container in all_containers(objects):
        own = container.get("securityContext", {})
        both = {**pod.get("securityContext", {}), **own}
        capabilities = own.get("capabilities", {})
        wrong = {
            "privileged": own.get("privileged", False),
            "may gain privileges": own.get("allowPrivilegeEscalation") is not False,
            "may be root": both.get("runAsNonRoot") is not True,
            "is root": both.get("runAsUser") == 0,
            "no seccomp profile": both.get("seccompProfile", {}).get("type") not in _SECCOMP,
            "keeps capabilities": "ALL" not in capabilities.get("drop", []),
            "adds capabilities": bool(set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}),
            "procMount": own.get("procMount", "Default") != "Default",
            "host port": any(port.get("hostPort") for port in container.get("ports", [])),
            "a probe asks another host": any(_probed_host(handler) for handler in _handlers(container)),
        }
        faults += [f"{where}: {fault}" for fault, broken in wrong.items() if broken]
        faults += [f"{where}: {fault}" for fault in _context_faults(own)]
    return faults


def _context_faults(context: Object) -> list[str]:
    selinux = context.get("seLinuxOptions", {})
    wrong = {
        "SELinux type": selinux.get("type", "") not in _SELINUX_TYPES,
        "SELinux user or role": bool(selinux.get("user") or selinux.get("role")),
        "AppArmor": context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _SECCOMP,
        "Windows host process": bool(context.get("windowsOptions", {}).get("hostProcess")),
        "seccomp off": context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in _SECCOMP,
        "root": context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False,
    }
    return [fault for fault, broken in wrong.items() if broken]


def _handlers(container: Object) -> list[Object]:
    lifecycle = container.get("lifecycle", {})
    return [container[probe] for probe in _PROBES if probe in container] + list(lifecycle.values())


def _probed_host(handler: Object) -> Any:
    return handler.get("httpGet", {}).get("host") or handler.get("tcpSocket", {}).get("host")


def read_only_root(objects: list[Object]) -> list[str]:
    """Nothing is written but where an emptyDir of bounded size or a volume of one's own is; services have /tmp."""
    faults = []
    for where, pod, container in all_containers(objects):
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem"):
            faults.append(f"{where}: writes into its root")
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        if container["name"] in ALL_SERVICES and "emptyDir" not in _volume(pod, mounts.get("/tmp")):
            faults.append(f"{where}: no /tmp to write to")
    for workload in workloads(objects):
        faults += [
            f"{title(workload)}: {volume['name']} may fill the node's disk"
            for volume in pod_of(workload).get("volumes", [])
            if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit")
        ]
    return faults


def _volume(pod: Object, name: str | None) -> Object:
    found: list[Object] = [volume for volume in pod.get("volumes", []) if volume["name"] == name]
    return found[0] if found else {}


def bounded_resources(objects: list[Object]) -> list[str]:
    """Requests and limits of memory and CPU; of CPU no limit where there is a GPU to keep busy."""
    faults = []
    for where, _, container in all_containers(objects):
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        gpu = "nvidia.com/gpu" in limits
        wanted = {
            ("requests", "cpu"),
            ("requests", "memory"),
            ("limits", "memory"),
            ("limits", "nvidia.com/gpu" if gpu else "cpu"),
        }
        faults += [f"{where}: no {kind} of {what}" for kind, what in sorted(wanted) if what not in resources.get(kind, {})]
        faults += [
            f"{where}: requests more {what} than its limit"
            for what in requests.keys() & limits.keys()
            if quantity(requests[what]) > quantity(limits[what])
        ]
        if gpu and requests.get("nvidia.com/gpu") != limits["nvidia.com/gpu"]:
            faults.append(f"{where}: GPUs cannot be shared: request and limit must be equal")
    return faults


def probed(objects: list[Object]) -> list[str]:
    """Three probes for whatever stays; those of encoder and decoder ask the port for health alone, by gRPC."""
    faults = []
    for workload in of_kind(objects, "Deployment"):
        for container in pod_of(workload)["containers"]:
            faults += [f"{title(workload)}: no {probe}" for probe in _PROBES if probe not in container]
    for name, _, container in model_services(objects):
        port = own_settings(name, container).get("health_bind") or ""
        for probe in _PROBES:
            asked = {"port": int(port.rpartition(":")[2] or 0)} | ({} if probe == "readinessProbe" else {"service": LIVENESS})
            if container.get(probe, {}).get("grpc") != asked:
                faults.append(f"{name}: its {probe} asks {container.get(probe, {}).get('grpc')}, not {asked}")
    return faults


def probed_over_http(objects: list[Object]) -> list[str]:
    """Those of a gateway ask its one port, over TLS where it has any, and get in: kubelet shows no certificate and no token."""
    faults = []
    for name, _, container in services(objects):
        settings = own_settings(name, container)
        if name in SERVICES:
            continue
        scheme = "HTTPS" if "tls_cert_file" in settings else "HTTP"
        for probe in _PROBES:
            path = "/readyz" if probe == "readinessProbe" else "/healthz"
            asked = {"path": path, "port": "http", "scheme": scheme}
            if container.get(probe, {}).get("httpGet") != asked:
                faults.append(f"{name}: its {probe} asks {container.get(probe, {}).get('httpGet')}, not {asked}")
        if "tls_client_ca_file" in settings:
            faults.append(f"{name}: turns kubelet away, which has no certificate")
    return faults


def no_tokens(objects: list[Object]) -> list[str]:
    """No pod has a token of the API's, and none has the variables that look like settings."""
    faults = [
        f"{title(account)}: mounts its token"
        for account in of_kind(objects, "ServiceAccount")
        if account.get("automountServiceAccountToken") is not False
    ]
    for workload in workloads(objects):
        pod = pod_of(workload)
        faults += [
            f"{title(workload)}: {field}"
            for field in ("automountServiceAccountToken", "enableServiceLinks")
            if pod.get(field) is not False
        ]
        accounts = {account["metadata"]["name"] for account in of_kind(objects, "ServiceAccount")}
        if pod.get("serviceAccountName") not in accounts:
            faults.append(f"{title(workload)}: no service account of its own")
    return faults


def spread_and_protected(objects: list[Object]) -> list[str]:
    """The services' pods are spread over zones and nodes, and few of them may be evicted at once."""
    faults = []
    for name, pod, _ in services(objects):
        (workload,) = [one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == name]
        labels = pod_labels(workload)
        spread = [one for one in pod.get("topologySpreadConstraints", []) if matches(one["labelSelector"], labels)]
        keys = {one["topologyKey"] for one in spread}
        faults += [
            f"{name}: would rather not run than be together" for one in spread if one["whenUnsatisfiable"] != "ScheduleAnyway"
        ]
        faults += [f"{name}: spread together with pods that go" for one in spread if not one.get("matchLabelKeys")]
        if keys != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
            faults.append(f"{name}: spread over {keys or 'nothing'}")
        budgets = [one for one in of_kind(objects, "PodDisruptionBudget") if matches(one["spec"]["selector"], labels)]
        if [one["spec"].get("maxUnavailable") for one in budgets] != [1]:
            faults.append(f"{name}: {len(budgets)} budgets, or one that lets more than one pod go, or none")
        if any(one["spec"].get("unhealthyPodEvictionPolicy") != "AlwaysAllow" for one in budgets):
            faults.append(f"{name}: a pod that cannot start would keep its node")
    return faults


def evictable(objects: list[Object]) -> list[str]:
    """No emptyDir keeps a node from being taken away (the cluster autoscaler's rule), since none holds what must last."""
    key = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
    faults = []
    for workload in of_kind(objects, "Deployment"):
        said = workload["spec"]["template"]["metadata"].get("annotations", {}).get(key, "")
        local = {volume["name"] for volume in pod_of(workload).get("volumes", []) if "emptyDir" in volume}
        if local != set(filter(None, said.split(","))):
            faults.append(f"{title(workload)}: {sorted(local)} would keep its node")
    return faults


def pinned_images(objects: list[Object]) -> list[str]:
    """Each image has a tag that is not `latest`, or a digest."""
    faults = []
    for where, _, container in all_containers(objects):
        name, _, digest = container["image"].partition("@")
        tag = name.rpartition("/")[2].partition(":")[2]
        if not digest and tag in ("", "latest"):
            faults.append(f"{where}: {container['image']} is not pinned")
    return faults


def gpus_on_their_own_nodes(objects: list[Object]) -> list[str]:
    """A service that asks for a GPU says on which nodes, its own, and bears their taint; with two of them those differ."""
    faults = []
    places: dict[str, str] = {}
    for name, pod, container in services(objects):
        if "nvidia.com/gpu" not in container["resources"].get("limits", {}):
            continue
        affinity = pod.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
        if not affinity and not pod.get("nodeSelector"):
            faults.append(f"{name}: runs on any node")
        if not any(one.get("key") == "nvidia.com/gpu" for one in pod.get("tolerations", [])):
            faults.append(f"{name}: is kept off nodes for GPUs")
        places[name] = repr((affinity, pod.get("nodeSelector")))
        if own_settings(name, container).get("device") != "cuda":
            faults.append(f"{name}: would serve on a CPU where it finds no GPU")
        if named(objects, "Deployment", name)["spec"]["strategy"]["rollingUpdate"] != {"maxSurge": 0, "maxUnavailable": 1}:
            faults.append(f"{name}: a new pod would wait for the GPU of an old one, and that one for the new pod")
    if len(places) > len(set(places.values())):
        faults.append("both services choose the same nodes")
    return faults


RULES = (
    enforced_restriction,
    restricted_pods,
    restricted_containers,
    read_only_root,
    bounded_resources,
    probed,
    probed_over_http,
    no_tokens,
    spread_and_protected,
    evictable,
    pinned_images,
    gpus_on_their_own_nodes,
)
