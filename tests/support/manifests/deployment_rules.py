"""Rules on this deployment: how its parts find each other, and what production never does."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.support.manifests.objects import SERVICES, Object, environment, named, of_kind, own_settings, pod_of, services
from tests.support.manifests.wiring_rules import file_is_there
from vscan.rpc.address import parse_address

_REDIS_USER = "vscan"  # of `k8s/make_secrets.sh`
_TLS = {"tls_cert_file", "tls_key_file"}
_MODEL_GUARDS = _TLS | {"identities_file", "cache_secret_file", "redis_password_file", "redis_tls_ca_file"}
_GUARDS = {"encoder": _MODEL_GUARDS, "decoder": _MODEL_GUARDS, "gateway": _TLS | {"decoder_tls_ca_file"}}


def encoder_address(objects: list[Object]) -> list[str]:
    """The decoder is pointed at the encoder's Service, headless so that it sees each pod, under the port that it has."""
    faults = []
    for name in SERVICES:
        spec = named(objects, "Service", name)["spec"]
        if spec.get("clusterIP") != "None" or spec.get("publishNotReadyAddresses"):
            faults.append(f"Service/{name}: hides its pods, or shows those that are not ready")
    settings = {name: own_settings(name, container) for name, _, container in services(objects)}
    address = parse_address((settings["decoder"]["encoder_address"] or "").removeprefix("dns:///"))
    ports = {port["port"] for port in named(objects, "Service", "encoder")["spec"]["ports"] if port["name"] == "grpc"}
    if (
        not (settings["decoder"]["encoder_address"] or "").startswith("dns:///")
        or address.host != "encoder"
        or address.port not in ports
    ):
        faults.append(f"decoder: its encoder is {settings['decoder']['encoder_address']}")
    return faults


def gateway_address(objects: list[Object]) -> list[str]:
    """A gateway is pointed at every decoder, and has one address itself; where its TLS ends, callers show tokens."""
    faults = []
    for name, _, container in services(objects):
        if name != "gateway":
            continue
        settings = own_settings(name, container)
        address = settings.get("decoder_address") or ""
        ports = [port["port"] for port in named(objects, "Service", "decoder")["spec"]["ports"] if port["name"] == "grpc"]
        if address not in [f"dns:///decoder:{port}" for port in ports]:
            faults.append(f"gateway: its decoders are {address}")
        spec = named(objects, "Service", "gateway")["spec"]
        if spec.get("clusterIP") == "None" or spec.get("type") != "ClusterIP" or spec.get("publishNotReadyAddresses"):
            faults.append("Service/gateway: is no address of its own within the cluster, or one of pods that are not ready")
        if ("tls_cert_file" in settings) != (settings.get("require_token") == "true"):
            faults.append("gateway: asks for tokens in plaintext, or for none")
    return faults


def called_services(objects: list[Object]) -> list[str]:
    """Redis and the collector are called by the name and port of a Service that is here; Redis as the user that it has."""
    faults = []
    ports = {one["metadata"]["name"]: {port["port"] for port in one["spec"]["ports"]} for one in of_kind(objects, "Service")}
    for name, _, container in services(objects):
        settings = own_settings(name, container)
        for field in ("redis_url", "otlp_endpoint"):
            url = urlsplit(settings.get(field) or "")
            if url.hostname and url.port not in ports.get(url.hostname, set()):
                faults.append(f"{name}: nothing answers at {field}, {url.hostname}:{url.port}")
            if field == "redis_url" and url.hostname and url.username != _REDIS_USER:
                faults.append(f"{name}: is {url.username or 'nobody'} to Redis")
    return faults


def redis_keeps_nothing(objects: list[Object]) -> list[str]:
    """Redis writes nothing to disk, gives up what is used least, has users, and memory for what it may hold."""
    faults = []
    for workload in of_kind(objects, "Deployment"):
        if workload["metadata"]["name"] != "redis":
            continue
        (container,) = pod_of(workload)["containers"]
        options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
        wanted = {"--save": "", "--appendonly": "no", "--maxmemory-policy": "allkeys-lfu", "--protected-mode": "no"}
        faults += [f"redis: {name} is {options.get(name)!r}" for name, value in wanted.items() if options.get(name) != value]
        if "--aclfile" not in options or not file_is_there(objects, pod_of(workload), container, options["--aclfile"]):
            faults.append("redis: everybody may write")
        probes = [container[kind]["exec"]["command"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
        if any(("--tls" in command) != ("--tls-port" in options) for command in probes):
            faults.append("redis: its probes speak another language")
        gigabytes = float(options.get("--maxmemory", "inf").removesuffix("gb"))
        limit = float(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        if gigabytes > 0.8 * limit:
            faults.append(f"redis: {gigabytes} GB of values in {limit} GiB")
    return faults


def guarded(objects: list[Object]) -> list[str]:
    """Of production: nothing is in plaintext or open to anybody, within the namespace or from outside."""
    faults = []
    for name, _, container in services(objects):
        settings = own_settings(name, container)
        faults += [
            f"{name}: {field}"
            for field in settings
            if "insecure" in field or field in ("allow_anonymous", "cache_allow_unsigned")
        ]
        faults += [f"{name}: no {field}" for field in sorted(_GUARDS[name] - set(settings))]
        if name == "gateway" and not settings.get("decoder_tls") == settings.get("require_token") == "true":
            faults.append("gateway: its decoder in plaintext, or callers without tokens")
        if name == "decoder" and settings.get("encoder_tls") != "true":
            faults.append("decoder: its encoder in plaintext")
        url = settings.get("redis_url")
        if url is not None and not url.startswith("rediss"):
            faults.append(f"{name}: Redis in plaintext")
        endpoint = settings.get("otlp_endpoint")
        if endpoint is not None and not endpoint.startswith("https://"):
            faults.append(f"{name}: spans in plaintext")
        variables = environment(container)
        faults += [
            f"{name}: {key} looks like a secret"
            for key, value in variables.items()
            if key.endswith(("PASSWORD", "TOKEN", "SECRET")) and value not in ("true", "false")
        ]
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")]
    if not any(
        one["podSelector"] == {} and set(one["policyTypes"]) == {"Ingress", "Egress"} and len(one) == 2 for one in policies
    ):
        faults.append("nothing is denied by default")
    return faults


RULES = (encoder_address, gateway_address, called_services, redis_keeps_nothing)
