"""Whatever is applied keeps the rules, and each rule notices when it is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.manifests import certificate_rules, deployment_rules, pod_rules, port_rules, sizing_rules, wiring_rules
from tests.support.manifests.objects import Object, named, pod_of
from tests.support.manifests.rendering import APPLIED, PARTS, Objects, rendered

Rule = Callable[[Objects], list[str]]
RULES: tuple[Rule, ...] = (
    *pod_rules.RULES,
    *sizing_rules.RULES,
    *port_rules.RULES,
    *wiring_rules.RULES,
    *certificate_rules.RULES,
    *deployment_rules.RULES,
)
PRODUCTION = [name for name in APPLIED if "production" in name]


@pytest.mark.parametrize("name", [*APPLIED, *PARTS])
def test_it_keeps_every_rule(name: str) -> None:
    objects = rendered(name)
    assert {rule.__name__: faults for rule in RULES if (faults := rule(objects))} == {}


@pytest.mark.parametrize("name", PRODUCTION)
def test_production_is_guarded(name: str) -> None:
    assert deployment_rules.guarded(rendered(name)) == []


def put(kind: str, name: str, path: str, value: Any) -> Callable[[Objects], None]:
    """Sets `a.0.b` of an object's spec, or of its pods' where the path begins with `pod.`; None removes it."""

    def change(objects: Objects) -> None:
        found: Any = named(objects, kind, name)
        *way, last = path.split(".")
        inner: Any = pod_of(found) if way[:1] == ["pod"] else found
        for step in way[way[:1] == ["pod"] :]:
            inner = inner[int(step)] if isinstance(inner, list) else inner.setdefault(step, {})
        key: Any = int(last) if isinstance(inner, list) else last.replace("|", ".")
        if value is None:
            del inner[key]
        else:
            inner[key] = value

    return change


def encoder(path: str, value: Any) -> Callable[[Objects], None]:
    return put("Deployment", "encoder", f"pod.{path}", value)


def gateway(path: str, value: Any) -> Callable[[Objects], None]:
    return put("Deployment", "gateway", f"pod.{path}", value)


def setting(name: str, variable: str, value: str | None) -> Callable[[Objects], None]:
    """Gives a service a variable, another value for it, or takes it away."""

    def change(objects: Objects) -> None:
        container: Object = pod_of(named(objects, "Deployment", name))["containers"][0]
        kept = [one for one in container["env"] if one["name"] != variable]
        container["env"] = kept + ([{"name": variable, "value": value}] if value is not None else [])

    return change


def drop(kind: str, name: str) -> Callable[[Objects], None]:
    def change(objects: Objects) -> None:
        objects.remove(named(objects, kind, name))

    return change


def mounts_secret(name: str, volume: str, secret: str) -> Callable[[Objects], None]:
    def change(objects: Objects) -> None:
        (found,) = [one for one in pod_of(named(objects, "Deployment", name))["volumes"] if one["name"] == volume]
        found["secret"]["secretName"] = secret

    return change


def redis_argument(option: str, value: str) -> Callable[[Objects], None]:
    def change(objects: Objects) -> None:
        arguments = pod_of(named(objects, "Deployment", "redis"))["containers"][0]["args"]
        arguments[arguments.index(option) + 1] = value

    return change


IN_CONTAINER = "containers.0.securityContext"
QUERY = "spec.triggers.0.metadata.query"
BROKEN: list[tuple[Rule, Callable[[Objects], None]]] = [
    (
        pod_rules.enforced_restriction,
        put("Namespace", "vscan", "metadata.labels.pod-security|kubernetes|io/enforce", "baseline"),
    ),
    (pod_rules.restricted_pods, encoder("hostNetwork", True)),
    (pod_rules.restricted_pods, encoder("hostPID", True)),
    (pod_rules.restricted_pods, encoder("hostIPC", True)),
    (pod_rules.restricted_pods, encoder("volumes.0", {"name": "tls", "hostPath": {"path": "/"}})),
    (pod_rules.restricted_pods, encoder("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}])),
    (pod_rules.restricted_pods, encoder("securityContext.seLinuxOptions", {"type": "spc_t"})),
    (pod_rules.restricted_pods, encoder("securityContext.runAsUser", 0)),
    (pod_rules.restricted_pods, encoder("securityContext.windowsOptions", {"hostProcess": True})),
    (pod_rules.restricted_pods, encoder("securityContext.seccompProfile", {"type": "Unconfined"})),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.privileged", True)),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.allowPrivilegeEscalation", None)),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.runAsNonRoot", False)),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.runAsUser", 0)),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.seccompProfile", {"type": "Unconfined"})),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.appArmorProfile", {"type": "Unconfined"})),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.capabilities.drop", ["NET_RAW"])),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.capabilities.add", ["SYS_ADMIN"])),
    (pod_rules.restricted_containers, encoder(f"{IN_CONTAINER}.procMount", "Unmasked")),
    (pod_rules.restricted_containers, encoder("containers.0.ports.0.hostPort", 7071)),
    (pod_rules.restricted_containers, encoder("containers.0.livenessProbe", {"httpGet": {"host": "1.1.1.1", "port": 1}})),
    (pod_rules.restricted_containers, encoder("initContainers.0.securityContext", {})),
    (pod_rules.restricted_containers, encoder("securityContext", {})),
    (pod_rules.read_only_root, encoder(f"{IN_CONTAINER}.readOnlyRootFilesystem", False)),
    (pod_rules.read_only_root, put("Deployment", "redis", "pod.volumes.2.emptyDir", {})),
    (pod_rules.read_only_root, encoder("containers.0.volumeMounts", [])),
    (pod_rules.bounded_resources, encoder("containers.0.resources.limits.memory", None)),
    (pod_rules.bounded_resources, encoder("containers.0.resources.requests.memory", "64Gi")),
    (pod_rules.bounded_resources, encoder("containers.0.resources.requests.nvidia|com/gpu", "2")),
    (pod_rules.bounded_resources, encoder("initContainers.0.resources", {})),
    (pod_rules.bounded_resources, put("Deployment", "redis", "pod.containers.0.resources.limits.cpu", None)),
    (pod_rules.bounded_resources, put("Job", "fill-model", "pod.containers.0.resources.requests.cpu", None)),
    (pod_rules.probed, encoder("containers.0.startupProbe", None)),
    (pod_rules.probed, encoder("containers.0.livenessProbe.grpc", {"port": 7073})),
    (pod_rules.probed, encoder("containers.0.readinessProbe.grpc.port", 7071)),
    (pod_rules.probed, put("Deployment", "otel-collector", "pod.containers.0.livenessProbe", None)),
    (pod_rules.probed_over_http, gateway("containers.0.livenessProbe.httpGet.scheme", "HTTP")),
    (pod_rules.probed_over_http, gateway("containers.0.readinessProbe.httpGet.path", "/healthz")),
    (pod_rules.probed_over_http, setting("gateway", "VSCAN_GATEWAY_TLS_CLIENT_CA_FILE", "/run/secrets/vscan-tls/ca.crt")),
    (pod_rules.no_tokens, encoder("automountServiceAccountToken", None)),
    (pod_rules.no_tokens, encoder("enableServiceLinks", None)),
    (pod_rules.no_tokens, encoder("serviceAccountName", None)),
    (pod_rules.no_tokens, put("ServiceAccount", "redis", "automountServiceAccountToken", True)),
    (sizing_rules.time_to_drain, encoder("terminationGracePeriodSeconds", 85)),
    (sizing_rules.time_to_drain, setting("decoder", "VSCAN_DECODER_DRAIN_SECONDS", "125")),
    (sizing_rules.time_to_drain, setting("decoder", "VSCAN_DECODER_DRAIN_DELAY_SECONDS", None)),
    (pod_rules.no_tokens, put("Job", "fill-model", "pod.serviceAccountName", None)),
    (sizing_rules.time_to_start, put("Deployment", "encoder", "spec.progressDeadlineSeconds", None)),
    (sizing_rules.time_to_start, put("Deployment", "decoder", "spec.progressDeadlineSeconds", 1350)),
    (sizing_rules.time_to_start, put("Deployment", "redis", "pod.containers.0.startupProbe.failureThreshold", 300)),
    (sizing_rules.memory_for_bounds, setting("encoder", "VSCAN_ENCODER_MAX_QUEUE_BYTES", str(6 * 2**30))),
    (sizing_rules.memory_for_bounds, encoder("containers.0.resources.limits.memory", "6Gi")),
    (sizing_rules.memory_for_bounds, setting("decoder", "VSCAN_DECODER_CACHE_MEMORY_BYTES", str(32 * 2**30))),
    (sizing_rules.memory_for_bounds, setting("gateway", "VSCAN_GATEWAY_MAX_BODIES_BYTES", None)),
    (sizing_rules.time_to_drain, gateway("terminationGracePeriodSeconds", 140)),
    (sizing_rules.fits_an_apply, put("ConfigMap", "vscan-dashboard", "data.more", "x" * 150_000)),
    (sizing_rules.threads_by_cpus, setting("decoder", "VSCAN_DECODER_TORCH_THREADS", None)),
    (sizing_rules.threads_by_cpus, setting("encoder", "VSCAN_ENCODER_IMAGE_WORKERS", "16")),
    (pod_rules.spread_and_protected, encoder("topologySpreadConstraints.0", None)),
    (pod_rules.spread_and_protected, encoder("topologySpreadConstraints.0.labelSelector.matchLabels", {"a": "b"})),
    (pod_rules.spread_and_protected, drop("PodDisruptionBudget", "decoder")),
    (pod_rules.spread_and_protected, put("PodDisruptionBudget", "decoder", "spec.maxUnavailable", 2)),
    (pod_rules.spread_and_protected, put("PodDisruptionBudget", "decoder", "spec.unhealthyPodEvictionPolicy", None)),
    (pod_rules.spread_and_protected, encoder("topologySpreadConstraints.1.whenUnsatisfiable", "DoNotSchedule")),
    (pod_rules.spread_and_protected, encoder("topologySpreadConstraints.1.matchLabelKeys", None)),
    (pod_rules.evictable, put("Deployment", "encoder", "spec.template.metadata.annotations", {})),
    (pod_rules.evictable, put("Deployment", "otel-collector", "pod.volumes.0", {"name": "config", "emptyDir": {}})),
    (pod_rules.pinned_images, encoder("containers.0.image", "registry:5000/vscan-encoder")),
    (pod_rules.pinned_images, encoder("containers.0.image", "vscan-encoder:latest")),
    (pod_rules.gpus_on_their_own_nodes, encoder("affinity", None)),
    (pod_rules.gpus_on_their_own_nodes, encoder("tolerations", [])),
    (pod_rules.gpus_on_their_own_nodes, setting("encoder", "VSCAN_ENCODER_DEVICE", "auto")),
    (
        pod_rules.gpus_on_their_own_nodes,
        put("Deployment", "encoder", "spec.strategy.rollingUpdate", {"maxSurge": 1, "maxUnavailable": 0}),
    ),
    (port_rules.declared_ports, encoder("containers.0.ports.0.containerPort", 7079)),
    (port_rules.declared_ports, setting("encoder", "VSCAN_ENCODER_METRICS_BIND", None)),
    (port_rules.declared_ports, put("Deployment", "redis", "pod.containers.0.ports.0.containerPort", 6380)),
    (port_rules.declared_ports, redis_argument("--tls-port", "6380")),
    (port_rules.declared_ports, put("Deployment", "otel-collector", "pod.containers.0.ports.0.containerPort", 4318)),
    (port_rules.declared_ports, setting("gateway", "VSCAN_GATEWAY_BIND", "0.0.0.0:80")),
    (port_rules.service_ports, put("Service", "gateway", "spec.ports.0.port", 80)),
    (port_rules.service_ports, put("Service", "encoder", "spec.ports.0.targetPort", "http")),
    (port_rules.service_ports, put("Service", "encoder", "spec.ports.0.port", 80)),
    (port_rules.service_ports, put("Service", "encoder", "spec.selector", {"app.kubernetes.io/name": "encode"})),
    (port_rules.service_ports, put("Service", "encoder", "spec.selector", {"app.kubernetes.io/part-of": "vscan"})),
    (port_rules.probe_ports, encoder("containers.0.livenessProbe.grpc.port", 7074)),
    (port_rules.probe_ports, put("Deployment", "otel-collector", "pod.containers.0.livenessProbe.httpGet.port", "healthz")),
    (port_rules.policy_ports, put("NetworkPolicy", "encoder", "spec.ingress.0.ports.0.port", "http")),
    (port_rules.policy_ports, put("NetworkPolicy", "encoder", "spec.podSelector.matchLabels", {"app": "encoder"})),
    (port_rules.policy_ports, put("NetworkPolicy", "decoder", "spec.egress.0.ports.0.port", 7070)),
    (port_rules.policy_ports, put("NetworkPolicy", "decoder", "spec.egress.0.ports.0.port", "grpc")),
    (
        port_rules.policy_ports,
        put("NetworkPolicy", "decoder", "spec.egress.0.to.0.podSelector.matchLabels", {"app": "encoder"}),
    ),
    (port_rules.monitored_ports, put("ServiceMonitor", "encoder", "spec.endpoints.0.port", "http")),
    (port_rules.monitored_ports, put("ServiceMonitor", "gateway", "spec.selector.matchLabels", {"app": "gateway"})),
    (port_rules.monitored_ports, put("ServiceMonitor", "gateway", "spec.endpoints.0.scheme", "http")),
    (port_rules.policy_ports, put("NetworkPolicy", "gateway", "spec.egress.0.ports.0.port", 7071)),
    (port_rules.monitored_ports, put("ServiceMonitor", "encoder", "spec.endpoints.0.scheme", "http")),
    (port_rules.monitored_ports, put("ServiceMonitor", "encoder", "spec.endpoints.0.tlsConfig.cert", None)),
    (port_rules.monitored_ports, put("ServiceMonitor", "encoder", "spec.selector.matchLabels", {"app": "encoder"})),
    (wiring_rules.known_settings, setting("encoder", "VSCAN_ENCODER_PORT", "1")),
    (wiring_rules.known_settings, setting("encoder", "VSCAN_DECODER_MAX_QUEUE", "1")),
    (wiring_rules.known_settings, setting("gateway", "VSCAN_GATEWAY_IDENTITIES_FILE", "/run/secrets/vscan-tls/tls.crt")),
    (wiring_rules.known_settings, encoder("containers.0.env.1.name", "VSCAN_ENCODER_BIND")),
    (wiring_rules.expanded_variables, encoder("containers.0.env.0", {"name": "EARLY", "value": "$(POD_NAME)"})),
    (wiring_rules.mounted_volumes, encoder("volumes.0", None)),
    (wiring_rules.mounted_volumes, encoder("containers.0.volumeMounts.0.readOnly", None)),
    (wiring_rules.mounted_volumes, encoder("volumes.0.secret.defaultMode", 0o444)),
    (wiring_rules.mounted_volumes, encoder("containers.0.volumeMounts.0.subPath", "secret")),
    (wiring_rules.files_of_settings, setting("encoder", "VSCAN_ENCODER_TLS_CERT_FILE", "/run/secrets/vscan-tls/cert.pem")),
    (wiring_rules.files_of_settings, setting("encoder", "VSCAN_ENCODER_CACHE_SECRET_FILE", "/run/cache/secret")),
    (
        wiring_rules.files_of_settings,
        setting("encoder", "VSCAN_ENCODER_REDIS_PASSWORD_FILE", "/run/secrets/vscan-redis/users.acl"),
    ),
    (
        wiring_rules.files_of_settings,
        setting("encoder", "VSCAN_ENCODER_IDENTITIES_FILE", "/run/secrets/vscan-identities/who.toml"),
    ),
    (wiring_rules.files_of_settings, setting("encoder", "VSCAN_ENCODER_MODEL", "/model/llava")),
    (wiring_rules.files_of_settings, setting("gateway", "VSCAN_GATEWAY_TLS_CLIENT_CA_FILE", "/models/ca.pem")),
    (wiring_rules.volume_claims, drop("PersistentVolumeClaim", "vscan-model")),
    (wiring_rules.volume_claims, put("PersistentVolumeClaim", "vscan-model", "spec.accessModes", ["ReadWriteOnce"])),
    (wiring_rules.selectors, put("Deployment", "encoder", "spec.selector.matchLabels", {"app.kubernetes.io/part-of": "vscan"})),
    (wiring_rules.selectors, put("PodDisruptionBudget", "encoder", "spec.selector.matchLabels", {"app": "encoder"})),
    (wiring_rules.selectors, put("Certificate", "encoder", "spec.issuerRef.name", "another-ca")),
    (wiring_rules.scaled_targets, put("Deployment", "gateway", "spec.replicas", 2)),
    (wiring_rules.scaled_targets, put("ScaledObject", "encoder", "spec.scaleTargetRef.name", "encoders")),
    (wiring_rules.scaled_targets, put("ScaledObject", "encoder", "spec.scaleTargetRef.name", "decoder")),
    (wiring_rules.scaled_targets, put("Deployment", "encoder", "spec.replicas", 2)),
    (wiring_rules.one_namespace, put("Service", "encoder", "metadata.namespace", "default")),
    (wiring_rules.one_namespace, put("Certificate", "decoder", "spec.dnsNames.1", "decoder.default")),
    (wiring_rules.one_namespace, put("ScaledObject", "decoder", QUERY, 'sum(vscan_decoder_waiting{namespace="default"})')),
    (wiring_rules.one_namespace, drop("Namespace", "vscan")),
    (wiring_rules.emitted_metrics, put("ScaledObject", "decoder", QUERY, "sum(vscan_decoder_waiting_total)")),
    (wiring_rules.emitted_metrics, put("ScaledObject", "encoder", QUERY, "rate(vscan_encoder_queue_wait_ms_bucket[2m])")),
    (deployment_rules.encoder_address, setting("decoder", "VSCAN_DECODER_ENCODER_ADDRESS", "dns:///encoder:7070")),
    (deployment_rules.encoder_address, setting("decoder", "VSCAN_DECODER_ENCODER_ADDRESS", "encoder:7071")),
    (deployment_rules.encoder_address, put("Service", "decoder", "spec.clusterIP", "10.0.0.1")),
    (deployment_rules.encoder_address, put("Service", "decoder", "spec.publishNotReadyAddresses", True)),
    (deployment_rules.gateway_address, setting("gateway", "VSCAN_GATEWAY_DECODER_ADDRESS", "decoder:7070")),
    (deployment_rules.gateway_address, put("Service", "gateway", "spec.clusterIP", "None")),
    (deployment_rules.gateway_address, put("Service", "gateway", "spec.type", "LoadBalancer")),
    (deployment_rules.gateway_address, setting("gateway", "VSCAN_GATEWAY_REQUIRE_TOKEN", None)),
    (deployment_rules.redis_keeps_nothing, redis_argument("--save", "60 1")),
    (deployment_rules.redis_keeps_nothing, redis_argument("--appendonly", "yes")),
    (deployment_rules.redis_keeps_nothing, redis_argument("--protected-mode", "yes")),
    (deployment_rules.redis_keeps_nothing, redis_argument("--maxmemory-policy", "noeviction")),
    (deployment_rules.redis_keeps_nothing, redis_argument("--maxmemory", "4gb")),
    (deployment_rules.redis_keeps_nothing, redis_argument("--aclfile", "/run/secrets/users.acl")),
    (certificate_rules.servers_certificates, put("Certificate", "encoder", "spec.dnsNames", ["encoder.vscan.svc"])),
    (certificate_rules.servers_certificates, put("Certificate", "otel-collector", "spec.dnsNames", ["collector"])),
    (certificate_rules.servers_certificates, put("Certificate", "gateway", "spec.dnsNames", ["gateway.vscan"])),
    (certificate_rules.servers_certificates, put("Certificate", "decoder", "spec.dnsNames", ["decoder.vscan.svc"])),
    (certificate_rules.servers_certificates, mounts_secret("gateway", "tls", "decoder-tls")),
    (
        certificate_rules.servers_certificates,
        put("ServiceMonitor", "decoder", "spec.endpoints.0.tlsConfig.serverName", "decoders"),
    ),
    (certificate_rules.servers_certificates, put("ServiceMonitor", "decoder", "spec.endpoints.0.tlsConfig.serverName", None)),
    (certificate_rules.servers_certificates, setting("encoder", "VSCAN_ENCODER_REDIS_URL", "rediss://vscan@cache:6379/0")),
    (certificate_rules.servers_certificates, put("Certificate", "redis", "spec.dnsNames", ["cache"])),
    (certificate_rules.clients_certificates, put("Certificate", "decoder-client", "spec.uris", ["spiffe://vscan/prometheus"])),
    (certificate_rules.servers_certificates, put("Certificate", "encoder", "spec.usages", ["client auth"])),
    (certificate_rules.servers_certificates, mounts_secret("decoder", "tls", "encoder-tls")),
    (certificate_rules.servers_certificates, mounts_secret("redis", "tls", "encoder-tls")),
    (certificate_rules.servers_certificates, mounts_secret("otel-collector", "tls", "redis-tls")),
    (certificate_rules.clients_certificates, put("Certificate", "decoder-client", "spec.usages", ["server auth"])),
    (certificate_rules.clients_certificates, put("Certificate", "prometheus-client", "spec.usages", ["server auth"])),
    (certificate_rules.clients_certificates, mounts_secret("decoder", "client-tls", "decoder-tls")),
    (
        certificate_rules.clients_certificates,
        put("ServiceMonitor", "encoder", "spec.endpoints.0.tlsConfig.ca.secret.key", "ca"),
    ),
    (certificate_rules.renewed_certificates, put("Certificate", "encoder", "spec.renewBefore", "2200h")),
    (certificate_rules.renewed_certificates, put("Certificate", "redis", "spec.secretName", "encoder-tls")),
    (certificate_rules.renewed_certificates, put("Certificate", "vscan-ca", "spec.isCA", False)),
    (certificate_rules.renewed_certificates, put("Certificate", "vscan-ca", "spec.privateKey.rotationPolicy", "Always")),
    (deployment_rules.called_services, setting("encoder", "VSCAN_ENCODER_REDIS_URL", "rediss://vscan@cache:6379/0")),
    (deployment_rules.called_services, setting("encoder", "VSCAN_ENCODER_REDIS_URL", "rediss://vscan@redis:6380/0")),
    (deployment_rules.called_services, setting("encoder", "VSCAN_ENCODER_REDIS_URL", "rediss://redis:6379/0")),
    (deployment_rules.called_services, setting("decoder", "VSCAN_DECODER_OTLP_ENDPOINT", "https://otel-collector:4318")),
    (
        deployment_rules.redis_keeps_nothing,
        put("Deployment", "redis", "pod.containers.0.livenessProbe.exec.command", ["redis-cli", "ping"]),
    ),
    (
        certificate_rules.servers_certificates,
        put("Deployment", "otel-collector", "pod.containers.0.args", ["--config=/etc/otelcol/config.yaml"]),
    ),
    (deployment_rules.guarded, setting("gateway", "VSCAN_GATEWAY_DECODER_TLS", None)),
    (deployment_rules.guarded, setting("gateway", "VSCAN_GATEWAY_DECODER_TLS_CA_FILE", None)),
    (deployment_rules.guarded, setting("gateway", "VSCAN_GATEWAY_ALLOW_ANONYMOUS", "true")),
    (deployment_rules.guarded, setting("decoder", "VSCAN_DECODER_ENCODER_TLS", None)),
    (deployment_rules.guarded, setting("encoder", "VSCAN_ENCODER_INSECURE", "true")),
    (deployment_rules.guarded, setting("decoder", "VSCAN_DECODER_IDENTITIES_FILE", None)),
    (deployment_rules.guarded, setting("decoder", "VSCAN_DECODER_REDIS_URL", "redis://vscan@redis:6379/0")),
    (deployment_rules.guarded, setting("decoder", "VSCAN_DECODER_OTLP_ENDPOINT", "http://otel-collector:4317")),
    (deployment_rules.guarded, setting("decoder", "REDIS_PASSWORD", "x")),
    (deployment_rules.guarded, drop("NetworkPolicy", "default-deny")),
    (deployment_rules.guarded, put("NetworkPolicy", "default-deny", "spec.policyTypes", ["Ingress"])),
]


@pytest.mark.parametrize(("rule", "break_it"), BROKEN, ids=lambda one: getattr(one, "__name__", ""))
def test_a_broken_rule_is_noticed(rule: Rule, break_it: Callable[[Objects], None]) -> None:
    objects = rendered("overlays/production")
    assert rule(objects) == []
    break_it(objects)
    assert rule(objects) != []


def test_every_rule_has_been_broken() -> None:
    assert {rule for rule, _ in BROKEN} == {*RULES, deployment_rules.guarded}
