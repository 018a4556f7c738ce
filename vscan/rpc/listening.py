"""Opening a port: whether it is free, with which certificates, and how others learn of it."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path

import grpc

from vscan.errors import StartupError
from vscan.rpc.address import Address
from vscan.rpc.settings import RpcSettings


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


def server_credentials(settings: RpcSettings) -> grpc.ServerCredentials | None:
    """TLS as the settings say; None for plaintext.

    Raises:
        StartupError: a file cannot be read, or certificate and key do not belong together.
    """
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    _check_pair(settings.tls_cert_file, settings.tls_key_file)
    client_ca = settings.tls_client_ca_file
    return grpc.ssl_server_credentials(
        [(read_pem(settings.tls_key_file), read_pem(settings.tls_cert_file))],
        root_certificates=None if client_ca is None else read_pem(client_ca),
        require_client_auth=client_ca is not None,
    )


def read_pem(path: Path) -> bytes:
    """A PEM file's content.

    Raises:
        StartupError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error


def _check_pair(certificate: Path, key: Path) -> None:
    for path in (certificate, key):
        read_pem(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise StartupError(f"the TLS certificate {certificate} and key {key} do not fit: {error.strerror or error}") from error


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
