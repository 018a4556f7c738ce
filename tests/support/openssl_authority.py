"""A certificate authority of a test's own, made with the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, PEM files."""

    cert_file: Path
    key_file: Path


class Authority:
    """Signs certificates that only who trusts `ca_file` accepts. Valid for a day."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        is_ca = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"]
        self._own = self._make("ca", is_ca, signed_by=None)

    @property
    def ca_file(self) -> Path:
        """What a client trusts."""
        return self._own.cert_file

    def issue(self, name: str, *, addresses: list[str]) -> Certificate:
        """A server's certificate for these IP addresses."""
        names = ",".join(f"IP:{address}" for address in addresses)
        return self._make(name, ["basicConstraints=critical,CA:FALSE", f"subjectAltName={names}"], signed_by=self._own)

    def _make(self, name: str, extensions: list[str], *, signed_by: Certificate | None) -> Certificate:
        made = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        command = ["openssl", "req", "-x509", *_NEW_KEY, "-days", "1", "-subj", f"/CN={name}"]
        command += ["-out", str(made.cert_file), "-keyout", str(made.key_file)]
        for extension in extensions:
            command += ["-addext", extension]
        if signed_by:
            command += ["-CA", str(signed_by.cert_file), "-CAkey", str(signed_by.key_file)]
        subprocess.run(command, check=True, capture_output=True)
        return made
