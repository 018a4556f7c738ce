"""Channels to the services, for the decoder and the SDK. Needs the base install only; the extra `otel` adds tracing."""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from opentelemetry.trace import TracerProvider

from vscan.errors import InvalidArgument, StartupError
from vscan.rpc.address import is_loopback_target
from vscan.rpc.tls_files import load_pair

DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024
DEFAULT_CONNECT_SECONDS = 5.0

# Not by the proxy of `http_proxy`, which would carry what is meant for this machine out of it. Docker gives containers one.
DIRECT = ("grpc.enable_http_proxy", 0)
_SERVICE_CONFIG: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}  # replicas behind one DNS name share the calls


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """TLS of a channel: whom to trust (the system's CAs unless told), and the client's own certificate if it has one."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @property
    def paths(self) -> tuple[Path | None, ...]:
        """All files."""
        return self.ca_file, self.cert_file, self.key_file

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            InvalidArgument: a file cannot be read, or certificate and key do not belong together.
        """
        self._check()
        return grpc.ssl_channel_credentials(
            root_certificates=_read("tls.ca_file", self.ca_file),
            private_key=_read("tls.key_file", self.key_file),
            certificate_chain=_read("tls.cert_file", self.cert_file),
        )

    def _check(self) -> None:
        """Of what cannot be used gRPC would say nothing but that there is no connection."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca_file is not None and _read("tls.ca_file", self.ca_file) is not None:
            try:
                context.load_verify_locations(self.ca_file)
            except ssl.SSLError as error:
                raise InvalidArgument("tls.ca_file", f"{self.ca_file} holds no certificate of a CA") from error
        if self.cert_file is not None and self.key_file is not None:
            _read("tls.cert_file", self.cert_file)
            _read("tls.key_file", self.key_file)
            try:
                load_pair(context, self.cert_file, self.key_file)
            except StartupError as error:
                raise InvalidArgument("tls.cert_file", error.message) from error


def open_channel(
    target: str,
    *,
    tls: ClientTls | grpc.ChannelCredentials | None = None,
    insecure: bool = False,
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    connect_seconds: float = DEFAULT_CONNECT_SECONDS,
    tracer_provider: TracerProvider | None = None,
    interceptors: Sequence[Any] = (),
    authority: str | None = None,
) -> grpc.aio.Channel:
    """An asyncio channel, with tracing around `interceptors`. Connects when first used, and again whenever the server is back.

    Args:
        target: `host:port`, or any gRPC target.
        tls: with what to protect it; None is plaintext. Files are read once: `RenewedChannel` follows those that change.
        insecure: allow plaintext beyond loopback.
        max_message_bytes: the largest message taken or sent.
        connect_seconds: how long one attempt to connect may last.
        tracer_provider: where client spans go; None is the global one.
        authority: the name, `host:port`, that the server's certificate bears where that is not the target's.

    Raises:
        InvalidArgument: plaintext beyond loopback, or a TLS file that cannot be read.
    """
    options = channel_options(max_message_bytes, connect_seconds)
    if is_loopback_target(target):
        options.append(DIRECT)
    if authority is not None:
        options.append(("grpc.default_authority", authority))
    around = [*_tracing(tracer_provider), *interceptors]
    if tls is not None:
        credentials = tls.credentials() if isinstance(tls, ClientTls) else tls
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=around)
    refuse_open_plaintext(target, insecure=insecure)
    return grpc.aio.insecure_channel(target, options=options, interceptors=around)


def refuse_open_plaintext(target: str, *, insecure: bool) -> None:
    """Raises `InvalidArgument` for plaintext to another machine that was not asked for."""
    if not insecure and not is_loopback_target(target):
        raise InvalidArgument("target", f"{target} is beyond this machine: use TLS, or ask for plaintext with `insecure`")


def channel_options(
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES, connect_seconds: float = DEFAULT_CONNECT_SECONDS
) -> list[tuple[str, Any]]:
    """Limits, keepalive and load balancing, for aio and for sync channels."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_metadata_size", 64 * 1024),
        ("grpc.keepalive_time_ms", 15_000),  # a peer that froze or vanished without a word is found within 25 s
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),  # else the ping is given a minute, whatever the line above says
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),  # else new replicas are not looked for within 30 s
        ("grpc.min_reconnect_backoff_ms", int(connect_seconds * 1000)),  # how long one attempt to connect may last
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ]


def _tracing(tracer_provider: TracerProvider | None) -> Sequence[Any]:
    try:
        from vscan.rpc.client_tracing import tracing_interceptors
    except ImportError:  # without the extra `otel`
        return ()
    return tracing_interceptors(tracer_provider)


def _read(field: str, path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise InvalidArgument(field, f"cannot read {path}: {error.strerror}") from error
