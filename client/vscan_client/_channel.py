"""Opens the SDK's channels: the services' own, and the trace context even where no tracing is installed."""

from __future__ import annotations

from importlib.util import find_spec

import grpc
import grpc.aio
from opentelemetry import trace

from vscan.rpc.channel import ClientTls, open_channel
from vscan.rpc.renewed_channel import RenewedChannel
from vscan_client._files import MAX_MESSAGE_BYTES
from vscan_client._resolving import Endpoint
from vscan_client._tracing import PropagateStream, PropagateUnary
from vscan_client.options import Tls


def open_sdk_channel(
    endpoint: Endpoint, *, tls: Tls | None, insecure: bool, connect_s: float, tracer_provider: trace.TracerProvider | None
) -> RenewedChannel:
    """A channel in the running event loop; it connects at its first call, and follows the TLS files as they change.

    Raises:
        InvalidArgument: plaintext beyond loopback without `insecure`, or a TLS file that cannot be read.
    """

    def connect(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        return open_channel(
            endpoint.target,
            tls=credentials,
            insecure=insecure,
            max_message_bytes=MAX_MESSAGE_BYTES,
            connect_seconds=connect_s,
            tracer_provider=tracer_provider,
            authority=endpoint.authority,
            interceptors=() if _instrumentation_is_installed() else (PropagateUnary(), PropagateStream()),
        )

    files = None if tls is None else ClientTls(ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file)
    return RenewedChannel(connect, files)


def _instrumentation_is_installed() -> bool:
    # The extra `otel` brings it; its interceptors, which the channel then has, pass the context on themselves.
    try:
        return find_spec("opentelemetry.instrumentation.grpc") is not None
    except ModuleNotFoundError:
        return False
