"""Certificates of a CA of the tests' own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


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
        return self._written(b"".join(pem.bytes() for pem in issued.cert_chain_pems), issued.private_key_pem.bytes())

    def issue_server(self, *names: str, valid_from: timedelta, valid_for: timedelta) -> Certificate:
        """For hosts, at another time than now."""
        begins = datetime.now(UTC) + valid_from
        issued = self._ca.issue_cert(*names, not_before=begins, not_after=begins + valid_for)
        return self._written(b"".join(pem.bytes() for pem in issued.cert_chain_pems), issued.private_key_pem.bytes())

    def issue_client(self, *, uris: Sequence[str] = (), hosts: Sequence[str] = (), common_name: str = "") -> Certificate:
        """For a client with these names, which trustme cannot all give; without URIs and hosts it has no alternative names."""
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, hosts)]
        ca = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        ca_key: Any = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)] if common_name else []))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not common_name)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self._written(builder.sign(ca_key, hashes.SHA256()).public_bytes(pem), private)

    def _written(self, certificate_pem: bytes, key_pem: bytes) -> Certificate:
        self._issued += 1
        certificate = Certificate(self._folder / f"{self._issued}.crt", self._folder / f"{self._issued}.key")
        certificate.cert_file.write_bytes(certificate_pem)
        certificate.key_file.write_bytes(key_pem)
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
