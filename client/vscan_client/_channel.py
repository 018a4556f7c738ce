"""Opens channels."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio
from opentelemetry import trace

from vscan.errors import InvalidArgument
from vscan.rpc.address import is_loopback_target
from vscan_client._tracing import client_interceptors
from vscan_client.options import Tls

# The largest reply holds tokens: 2,880 of 8,192 float32 values are 90 MiB. What is sent is the server's to limit.
_MAX_REPLY_BYTES = 256 * 1024 * 1024
_KEEPALIVE_MS = 30_000
_RECONNECT_FIRST_MS = 100
_RECONNECT_MAX_MS = 5_000


def open_channel(
    target: str, *, tls: Tls | None, insecure: bool, connect_s: float, tracer_provider: trace.TracerProvider | None
) -> grpc.aio.Channel:
    """A channel in the running event loop; it connects at its first call.

    Raises:
        InvalidArgument: plaintext beyond loopback without `insecure`, or a TLS file that cannot be read.
    """
    options = _options(connect_s, tls)
    interceptors = client_interceptors(tracer_provider)
    if tls is not None:
        return grpc.aio.secure_channel(target, _credentials(tls), options=options, interceptors=interceptors)
    if not insecure and not is_loopback_target(target):
        raise InvalidArgument(
            "server", f"plaintext to {target}, beyond loopback: give tls, or insecure where the network protects itself"
        )
    return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)


def _options(connect_s: float, tls: Tls | None) -> list[tuple[str, int | str]]:
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", _MAX_REPLY_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.initial_reconnect_backoff_ms", _RECONNECT_FIRST_MS),
        ("grpc.max_reconnect_backoff_ms", _RECONNECT_MAX_MS),
        # gRPC takes this one as the time that one attempt to connect may last.
        ("grpc.min_reconnect_backoff_ms", int(connect_s * 1000)),
        # Retrying is decided in one place, the core: it knows about digests and about text that was delivered.
        ("grpc.enable_retries", 0),
    ]
    if tls is not None and tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca_file, "tls.ca_file"),
        private_key=_read(tls.key_file, "tls.key_file"),
        certificate_chain=_read(tls.cert_file, "tls.cert_file"),
    )


def _read(path: Path | None, field: str) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise InvalidArgument(field, f"{path}: {error.strerror or 'cannot be read'}") from error
