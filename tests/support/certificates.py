"""Certificates of a CA of the tests' own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import trustme


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of PEM files."""

    cert_file: Path
    key_file: Path


class Authority:
    """Signs certificates, as PEM files in a folder; `ca_file` is whom to trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(mkdtemp(dir=folder))
        self._ca = trustme.CA()
        self._issued = 0
        self.ca_file = self._folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, *names: str) -> Certificate:
        """For hosts (`127.0.0.1`, `localhost`) or clients (`decoder@example.org`)."""
        issued = self._ca.issue_cert(*names)
        self._issued += 1
        certificate = Certificate(self._folder / f"{self._issued}.crt", self._folder / f"{self._issued}.key")
        certificate.cert_file.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        certificate.key_file.write_bytes(issued.private_key_pem.bytes())
        return certificate


class Mounted:
    """Files that a server or a client was told, whose contents change."""

    def __init__(self, folder: Path, certificate: Certificate, ca: Path | None = None) -> None:
        self.cert, self.key, self.ca = folder / "tls.crt", folder / "tls.key", folder / "ca.crt"
        self.write(cert=certificate.cert_file, key=certificate.key_file)
        if ca is not None:
            self.write(ca=ca)

    def write(self, **contents: Path) -> None:
        """Each file is replaced as a whole, one after the other."""
        for name, source in contents.items():
            path: Path = getattr(self, name)
            partial = path.with_suffix(".new")
            partial.write_bytes(source.read_bytes())
            partial.replace(path)
