"""Rules on certificates: who shows which, under which names, and for what."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import yaml

from tests.support.manifests.objects import (
    ALL_SERVICES,
    Object,
    containers,
    environment,
    named,
    of_kind,
    own_settings,
    pod_of,
    services,
    title,
)
from vscan.rpc.address import parse_address


def servers_certificates(objects: list[Object]) -> list[str]:
    """The certificate that a server has mounted bears each name that it is called by, and is a server's."""
    faults = []
    for server, name in called_over_tls(objects):
        shown = _mounted_certificate(objects, server, _certificate_file(objects, server))
        if name not in shown.get("dnsNames", []):
            faults.append(f"{server}: its certificate is not for {name}")
        if server == "otel-collector" and not _collector_has_tls(objects):
            faults.append(f"{server}: its configuration has no TLS")
        if "server auth" not in shown.get("usages", []):
            faults.append(f"{server}: its certificate is no server's")
    return faults


def clients_certificates(objects: list[Object]) -> list[str]:
    """Who shows a certificate to the encoder has one for clients; the encoder knows the decoder's, and no other."""
    faults = []
    settings = {name: own_settings(name, container) for name, _, container in services(objects)}
    if path := settings["decoder"].get("encoder_tls_cert_file"):
        shown = _mounted_certificate(objects, "decoder", path)
        known = named(objects, "ConfigMap", "encoder-identities")["data"]["identities.toml"]
        if not shown.get("uris") or any(f'certificate = "{uri}"' not in known for uri in shown["uris"]):
            faults.append(f"encoder: does not know {shown.get('uris')}")
        if "client auth" not in shown.get("usages", []):
            faults.append("decoder: its certificate is no client's")
    for monitor in of_kind(objects, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            faults += [f"{title(monitor)}: {fault}" for fault in _monitors_faults(objects, endpoint.get("tlsConfig", {}))]
    return faults


def _monitors_faults(objects: list[Object], tls: Object) -> Iterator[str]:
    references = {part: tls[part].get("secret", tls[part]) for part in ("ca", "cert", "keySecret") if part in tls}
    keys = {"ca": "ca.crt", "cert": "tls.crt", "keySecret": "tls.key"}
    yield from (f"{part} is {one['key']}" for part, one in references.items() if one["key"] != keys[part])
    if "cert" in references and "client auth" not in _of_secret(objects, references["cert"]["name"]).get("usages", []):
        yield "its certificate is no client's"


def renewed_certificates(objects: list[Object]) -> list[str]:
    """Each has a Secret of its own and is renewed before its end; whoever signs others is a CA that keeps its key."""
    certificates = [one["spec"] for one in of_kind(objects, "Certificate")]
    secrets = [one["secretName"] for one in certificates]
    faults = [f"two certificates in {name}" for name in sorted({name for name in secrets if secrets.count(name) > 1})]
    for one in certificates:
        lasts, renewed = (float(one[field].removesuffix("h")) for field in ("duration", "renewBefore"))
        if not 24 <= renewed <= lasts / 2:
            faults.append(f"{one['secretName']}: is renewed {renewed} h before the end of {lasts} h")
    for issuer in of_kind(objects, "Issuer"):
        if "ca" in issuer["spec"]:
            signs = _of_secret(objects, issuer["spec"]["ca"]["secretName"])
            if not signs.get("isCA") or signs["privateKey"].get("rotationPolicy") != "Never":
                faults.append(f"{title(issuer)}: its own certificate is no CA's, or is another at each renewal")
    return faults


def called_over_tls(objects: list[Object]) -> Iterator[tuple[str, str]]:
    """(server, the name that it is called by) of each connection over TLS within the namespace."""
    settings = {name: own_settings(name, container) for name, _, container in services(objects)}
    for name, own in settings.items():
        if "tls_cert_file" in own:
            yield name, name
        for field, scheme in (("redis_url", "rediss"), ("otlp_endpoint", "https")):
            url = urlsplit(own.get(field) or "")
            if url.scheme == scheme:
                yield {"rediss": "redis", "https": "otel-collector"}[scheme], str(url.hostname)
    for caller, server in (("decoder", "encoder"), ("gateway", "decoder")):
        if f"{server}_tls" in settings.get(caller, {}):
            yield server, parse_address((settings[caller][f"{server}_address"] or "").removeprefix("dns:///")).host
    for monitor in of_kind(objects, "ServiceMonitor"):
        for endpoint in monitor["spec"]["endpoints"]:
            if "tlsConfig" in endpoint and monitor["metadata"]["name"] in settings:
                yield monitor["metadata"]["name"], endpoint["tlsConfig"].get("serverName", "")


def _certificate_file(objects: list[Object], server: str) -> str | None:
    """Where a server reads its certificate: by a setting, an argument or a variable."""
    (container,) = pod_of(named(objects, "Deployment", server))["containers"]
    if server in ALL_SERVICES:
        return own_settings(server, container).get("tls_cert_file")
    arguments = container["args"]
    if "--tls-cert-file" in arguments:
        return str(arguments[arguments.index("--tls-cert-file") + 1])
    return environment(container).get("TLS_CERT_FILE")


def _collector_has_tls(objects: list[Object]) -> bool:
    """Whether one of the configurations that it is started with gives its receiver a certificate."""
    pod = pod_of(named(objects, "Deployment", "otel-collector"))
    (container,) = pod["containers"]
    maps = {one["name"]: one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one}
    for mount in container["volumeMounts"]:
        for argument in container["args"]:
            folder, _, file = argument.removeprefix("--config=").rpartition("/")
            if mount["mountPath"] == folder and mount["name"] in maps:
                text = named(objects, "ConfigMap", maps[mount["name"]])["data"].get(file, "")
                grpc = yaml.safe_load(text)["receivers"]["otlp"]["protocols"]["grpc"]
                if "cert_file" in grpc.get("tls", {}):
                    return True
    return False


def _mounted_certificate(objects: list[Object], server: str, path: str | None) -> Object:
    """The Certificate behind a file that a pod has mounted; empty where there is none."""
    pod = pod_of(named(objects, "Deployment", server))
    secrets = {one["name"]: one["secret"]["secretName"] for one in pod.get("volumes", []) if "secret" in one}
    for container in containers(pod):
        for mount in container.get("volumeMounts", []):
            if path is not None and path.startswith(f"{mount['mountPath']}/"):
                return _of_secret(objects, secrets.get(mount["name"], ""))
    return {}


def _of_secret(objects: list[Object], name: str) -> Object:
    """The Certificate that fills a Secret."""
    found: list[Object] = [one["spec"] for one in of_kind(objects, "Certificate") if one["spec"]["secretName"] == name]
    return found[0] if found else {}


RULES = (servers_certificates, clients_certificates, renewed_certificates)
