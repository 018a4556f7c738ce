"""What a pod would find mounted, as files of a test's: secrets, certificates, configuration; and its environment."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from scripts.protos import ROOT
from tests.support.certificates import Authority, Certificate
from tests.support.manifests.objects import Object, named, of_kind, pod_of

EXTERNAL_REDIS_URL = "rediss://vscan@redis.example:6379/0"
_POD = {"metadata.name": "encoder-0", "metadata.namespace": "vscan", "spec.nodeName": "node-1"}


class Mounts:
    """Certificates are of one authority, by the names that the manifests' have, and 127.0.0.1.

    Args:
        folder: for the files.
        identities: content of the Secret `vscan-decoder-identities`.
        model: the checkpoint, where a claim is mounted for one; None leaves the path as it stands.
    """

    def __init__(self, folder: Path, *, identities: str = "", model: Path | None = None) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self._identities = identities
        self._model = model

    @cached_property
    def made_secrets(self) -> dict[str, dict[str, str]]:
        """What `k8s/make_secrets.sh` makes, by name."""
        return {one["metadata"]["name"]: one["stringData"] for one in run_make_secrets()}

    def environment(self, objects: list[Object], name: str) -> dict[str, str]:
        """The variables of a Deployment's container, once the files that they name are written."""
        pod = pod_of(named(objects, "Deployment", name))
        (container,) = pod["containers"]
        values: dict[str, str] = {}
        for variable in container.get("env", []):
            raw = _looked_up(variable["valueFrom"]) if "valueFrom" in variable else variable["value"]
            values[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: values[match.group(1)], raw)
        places = self.places(objects, name)
        moved = {key: moved_path(value, places) for key, value in values.items()}
        if self._model is not None:
            moved |= {key: str(self._model) for key in moved if key.endswith("_MODEL")}
        return moved

    def places(self, objects: list[Object], name: str) -> dict[str, Path]:
        """Where each of a container's mounts is, once its files are written."""
        pod = pod_of(named(objects, "Deployment", name))
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        places = {}
        for mount in container.get("volumeMounts", []):
            place = self.folder / name / mount["mountPath"].strip("/")
            place.mkdir(parents=True, exist_ok=True)
            for file, content in self._files(objects, volumes[mount["name"]]).items():
                (place / file).write_bytes(content)
                (place / file).chmod(0o440)
            places[mount["mountPath"]] = place
        return places

    def _files(self, objects: list[Object], volume: Object) -> dict[str, bytes]:
        if "configMap" in volume:
            data = named(objects, "ConfigMap", volume["configMap"]["name"])["data"]
            return {file: text.encode() for file, text in data.items()}
        if "secret" not in volume:
            return {}
        content = self._secret(objects, volume["secret"]["secretName"])
        items = volume["secret"].get("items") or [{"key": key, "path": key} for key in content]
        return {item["path"]: content[item["key"]] for item in items}

    def _secret(self, objects: list[Object], name: str) -> dict[str, bytes]:
        if name in self.made_secrets:
            return {key: value.encode() for key, value in self.made_secrets[name].items()}
        if name == "vscan-decoder-identities":
            return {"identities.toml": self._identities.encode()}
        if name == "vscan-external-redis-ca":
            return {"ca.crt": self.authority.ca_file.read_bytes()}
        (wanted,) = [one["spec"] for one in of_kind(objects, "Certificate") if one["spec"]["secretName"] == name]
        return self.certificate_files(self._issued(wanted))

    def certificate_files(self, issued: Certificate) -> dict[str, bytes]:
        """As cert-manager writes them."""
        files = {"tls.crt": issued.cert_file, "tls.key": issued.key_file, "ca.crt": self.authority.ca_file}
        return {name: path.read_bytes() for name, path in files.items()}

    def _issued(self, wanted: Object) -> Certificate:
        if "uris" in wanted:
            return self.authority.issue_client(uris=wanted["uris"])
        return self.authority.issue(*wanted["dnsNames"], "127.0.0.1")


def run_make_secrets(**variables: str) -> list[dict[str, Any]]:
    """The Secrets that the script prints."""
    command = ["sh", str(ROOT / "k8s" / "make_secrets.sh")]
    done = subprocess.run(command, env=os.environ | variables, check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(done.stdout))


def moved_path(value: str, places: dict[str, Path]) -> str:
    """A path below a mount, where its files are."""
    for mounted, place in places.items():
        if value.startswith(f"{mounted}/") and (place / value.removeprefix(f"{mounted}/")).exists():
            return str(place / value.removeprefix(f"{mounted}/"))
    return value


def _looked_up(source: dict[str, Any]) -> str:
    if "fieldRef" in source:
        return _POD[source["fieldRef"]["fieldPath"]]
    reference = source["configMapKeyRef"]
    return {("vscan-external-redis", "url"): EXTERNAL_REDIS_URL}[reference["name"], reference["key"]]
