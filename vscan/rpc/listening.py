"""Opening a port: whether it is free, with which certificates, and how others learn of it."""

from __future__ import annotations

import errno
import logging
import os
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

from vscan.errors import StartupError
from vscan.rpc.address import Address
from vscan.rpc.certificate_end import first_end
from vscan.rpc.tls_files import Rotating, ServerTls, read_pem

_log = logging.getLogger(__name__)


def check_free(address: Address) -> None:
    """Binds the address for a moment: the system says why it cannot, where gRPC would only say that it could not.

    Raises:
        StartupError: naming the address and the reason.
    """
    try:
        candidates = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise StartupError(f"cannot listen on {address}: {error.strerror}") from error
    tried = [_refusal(family, sockaddr) for family, _, _, _, sockaddr in candidates]
    refusals = [refusal for refusal in tried if refusal is not None]
    taken = [refusal for refusal in refusals if refusal.errno == errno.EADDRINUSE]
    if taken or len(refusals) == len(candidates):
        reason = taken[0] if taken else refusals[0]
        raise StartupError(f"cannot listen on {address}: {os.strerror(reason.errno or 0)}") from reason


def _refusal(family: int, sockaddr: tuple[object, ...]) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: closed connections do not block
            probe.bind(sockaddr)
    except OSError as error:
        return error
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """The server's files as they were read. `ends_s`: when its certificate ends, seconds since 1970; None: nobody can tell."""

    configuration: grpc.ServerCertificateConfiguration
    ends_s: float | None


def server_certificates(tls: ServerTls) -> Rotating[Loaded]:
    """The server's files, followed.

    Raises:
        StartupError: a file cannot be read, or certificate and key do not belong together.
    """
    return Rotating("the server's certificate", tls.paths, partial(_loaded, tls))


def server_credentials(certificates: Rotating[Loaded], *, wants_certificates: bool) -> grpc.ServerCredentials:
    """TLS, for each handshake with the files as they then are. `wants_certificates`: of clients too."""
    told = certificates.current()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Called at each handshake, by a thread of gRPC's; None: as before, and gRPC need not read it again."""
        nonlocal told
        newest = certificates.current()
        if newest is told:
            return None
        told = newest
        return newest.configuration

    # The stubs do not know that None is allowed.
    return grpc.dynamic_ssl_server_credentials(told.configuration, changed, wants_certificates)  # type: ignore[arg-type]


def _loaded(tls: ServerTls) -> Loaded:
    tls.check()
    configuration = grpc.ssl_server_certificate_configuration(
        [(read_pem(tls.key_file), read_pem(tls.cert_file))],
        root_certificates=None if tls.client_ca_file is None else read_pem(tls.client_ca_file),
    )
    try:
        return Loaded(configuration, first_end(tls.cert_file))
    except (OSError, ValueError) as error:
        _log.warning("when the server's certificate ends cannot be told: %s", error)
        return Loaded(configuration, None)


def write_ready_file(path: Path, text: str) -> None:
    """Puts the whole text there at once: who reads the file never sees half of it.

    Raises:
        StartupError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        raise StartupError(f"cannot write {path}: {error.strerror}") from error
