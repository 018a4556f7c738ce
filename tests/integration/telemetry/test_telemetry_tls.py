"""Metrics and spans over TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.certificates import Authority, Certificate, Mounted
from tests.support.otlp_collector import OtlpCollector
from tests.support.redis_server import free_port
from vscan.errors import StartupError
from vscan.rpc.tls_files import ServerTls
from vscan.telemetry.settings import TelemetrySettings
from vscan.telemetry.setup import setup_telemetry

HOST = "127.0.0.1"


@contextmanager
def metrics(host: str = HOST, **fields: Any) -> Iterator[int]:
    """A process' metrics, on this port."""
    port = free_port()
    telemetry = setup_telemetry("vscan-decoder", TelemetrySettings(metrics_bind=f"{host}:{port}"), **fields)
    try:
        yield port
    finally:
        telemetry.shutdown()


def scraped(port: int, authority: Authority, own: Certificate | None = None) -> bool:
    """Whether this client gets metrics."""
    context = ssl.create_default_context(cafile=str(authority.ca_file))
    if own is not None:
        context.load_cert_chain(own.cert_file, own.key_file)
    connection = HTTPSConnection(HOST, port, context=context, timeout=20)
    try:
        connection.request("GET", "/metrics")
        return b"process_cpu_seconds_total" in connection.getresponse().read()
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        connection.close()


def scraped_plainly(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=20)
    try:
        connection.request("GET", "/metrics")
        return b"process_cpu_seconds_total" in connection.getresponse().read()
    finally:
        connection.close()


def test_metrics_beyond_this_machine_need_tls_or_a_word() -> None:
    with pytest.raises(StartupError, match=r"plaintext on 0.0.0.0:1 .*`metrics_bind`.*`insecure`"):
        setup_telemetry("vscan-decoder", TelemetrySettings(metrics_bind="0.0.0.0:1"))
    with metrics("0.0.0.0", insecure=True) as port:
        assert scraped_plainly(port)


def test_the_servers_certificate_protects_metrics_and_is_followed(tmp_path: Path) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path)
    mounted = Mounted(tmp_path, old.issue(HOST))
    with metrics("0.0.0.0", tls=ServerTls(cert_file=mounted.cert, key_file=mounted.key)) as port:
        assert scraped(port, old)
        assert not scraped(port, new)
        certificate = new.issue(HOST)
        mounted.write(cert=certificate.cert_file)
        assert scraped(port, old)  # half a rotation
        mounted.write(key=certificate.key_file)
        assert scraped(port, new)
        assert not scraped(port, old)


def test_where_clients_need_a_certificate_so_does_prometheus(tmp_path: Path) -> None:
    authority, clients = Authority(tmp_path), Authority(tmp_path)
    mounted = Mounted(tmp_path, authority.issue(HOST), ca=clients.ca_file)
    with metrics(tls=ServerTls(cert_file=mounted.cert, key_file=mounted.key, client_ca_file=mounted.ca)) as port:
        assert not scraped(port, authority)
        assert not scraped(port, authority, authority.issue("prometheus@example.org"))
        assert scraped(port, authority, clients.issue("prometheus@example.org"))


def test_a_client_that_says_nothing_holds_up_nobody(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue(HOST)
    with (
        metrics(tls=ServerTls(cert_file=own.cert_file, key_file=own.key_file)) as port,
        socket.create_connection((HOST, port)),
        socket.create_connection((HOST, port)),
    ):
        assert scraped(port, authority)


def test_connections_are_bounded() -> None:
    with metrics() as port:
        held = [socket.create_connection((HOST, port)) for _ in range(16)]
        with socket.create_connection((HOST, port), timeout=20) as refused:
            assert refused.recv(1) == b""
        for connection in held:
            connection.close()


def test_spans_and_metrics_go_to_a_collector_of_a_private_ca(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue(HOST)
    credentials = grpc.ssl_server_credentials([(own.key_file.read_bytes(), own.cert_file.read_bytes())])
    with OtlpCollector(credentials=credentials) as collector:
        settings = TelemetrySettings(otlp_endpoint=collector.endpoint, otlp_ca_file=authority.ca_file)
        telemetry = setup_telemetry("vscan-decoder", settings)
        telemetry.meter.create_counter("vscan.requests").add(1)
        with telemetry.tracer.start_as_current_span("known"):
            pass
        telemetry.shutdown()
        stranger = TelemetrySettings(otlp_endpoint=collector.endpoint, otlp_ca_file=Authority(tmp_path).ca_file)
        telemetry = setup_telemetry("vscan-decoder", stranger)
        with telemetry.tracer.start_as_current_span("to a stranger"):
            pass
        telemetry.shutdown()
    assert [span.name for span in collector.spans] == ["known"]
    assert "vscan.requests" in collector.metric_names


def test_a_ca_without_tls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="otlp_ca_file"):
        TelemetrySettings(otlp_endpoint="http://127.0.0.1:4317", otlp_ca_file=tmp_path / "ca.pem")
