"""Rules on this deployment: how its parts find each other, and what production never does."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.support.manifests.objects import SERVICES, Object, environment, named, of_kind, own_settings, pod_of, services
from tests.support.manifests.wiring_rules import file_is_there
from vscan.rpc.address import parse_address


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
        gigabytes = float(options.get("--maxmemory", "inf").removesuffix("gb"))
        limit = float(container["resources"]["limits"]["memory"].removesuffix("Gi"))
        if gigabytes > 0.8 * limit:
            faults.append(f"redis: {gigabytes} GB of values in {limit} GiB")
    return faults


def certificates_fit(objects: list[Object]) -> list[str]:
    """A server's certificate bears the name that it is called by, and the encoder knows the one that the decoder shows."""
    faults = []
    settings = {name: own_settings(name, container) for name, _, container in services(objects)}
    certificates = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "Certificate")}
    faults += [
        f"{server}: its certificate is not for {name}"
        for server, name in _called_over_tls(objects, settings)
        if name not in certificates.get(server, {}).get("dnsNames", [])
    ]
    if "identities_file" in settings["encoder"]:
        (uri,) = certificates["decoder-client"]["uris"]
        if f'certificate = "{uri}"' not in named(objects, "ConfigMap", "encoder-identities")["data"]["identities.toml"]:
            faults.append(f"encoder: does not know {uri}")
    return faults


def _called_over_tls(objects: list[Object], settings: dict[str, dict[str, str | None]]) -> Iterator[tuple[str, str]]:
    """(server, the name that it is called by) of each connection over TLS within the namespace."""
    for name, own in settings.items():
        if "tls_cert_file" in own:
            yield name, name
        for field, scheme in (("redis_url", "rediss"), ("otlp_endpoint", "https")):
            url = urlsplit(own.get(field) or "")
            if url.scheme == scheme:
                yield {"rediss": "redis", "https": "otel-collector"}[scheme], str(url.hostname)
    if "encoder_tls" in settings["decoder"]:
        yield "encoder", parse_address((settings["decoder"]["encoder_address"] or "").removeprefix("dns:///")).host
    for monitor in of_kind(objects, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            if "tlsConfig" in endpoint:
                yield monitor["metadata"]["name"], endpoint["tlsConfig"].get("serverName", "")


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
        wanted = {
            "tls_cert_file",
            "tls_key_file",
            "identities_file",
            "cache_secret_file",
            "redis_password_file",
            "redis_tls_ca_file",
        }
        faults += [f"{name}: no {field}" for field in sorted(wanted - set(settings))]
        url = settings.get("redis_url")
        if url is not None and not url.startswith("rediss"):
            faults.append(f"{name}: Redis in plaintext")
        endpoint = settings.get("otlp_endpoint")
        if endpoint is not None and not endpoint.startswith("https://"):
            faults.append(f"{name}: spans in plaintext")
        variables = environment(container)
        faults += [f"{name}: {key} looks like a secret" for key in variables if key.endswith(("PASSWORD", "TOKEN", "SECRET"))]
    policies = [one["spec"] for one in of_kind(objects, "NetworkPolicy")]
    if not any(
        one["podSelector"] == {} and set(one["policyTypes"]) == {"Ingress", "Egress"} and len(one) == 2 for one in policies
    ):
        faults.append("nothing is denied by default")
    return faults


RULES = (encoder_address, redis_keeps_nothing, certificates_fit)
