"""Certificates that are renewed while a server runs."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.support.certificates import Authority, Certificate, Mounted
from tests.support.toy_services import ToyDecoder, serving_decoder
from tests.support.until import until
from vscan.rpc.channel import ClientTls, open_channel
from vscan.rpc.settings import RpcSettings
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

HOST = "127.0.0.1"
LOG = "vscan.rpc.tls_files"


def settings(mounted: Mounted, **more: Any) -> RpcSettings:
    return RpcSettings(tls_cert_file=mounted.cert, tls_key_file=mounted.key, drain_seconds=5, **more)


async def answers(address: str, trusted: Authority, own: Certificate | None = None) -> bool:
    """Whether a new connection is made."""
    files = {} if own is None else {"cert_file": own.cert_file, "key_file": own.key_file}
    async with open_channel(address, tls=ClientTls(ca_file=trusted.ca_file, **files)) as channel:
        stub: Any = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
        try:
            return bool((await stub.Describe(decoder_pb2.DescribeDecoderRequest(), timeout=20)).model == "toy")
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return False
            raise


@asynccontextmanager
async def serving(settings: RpcSettings) -> AsyncIterator[str]:
    async with serving_decoder(ToyDecoder(), settings) as (_, address):
        yield address


async def test_a_new_certificate_is_shown_to_who_connects_next(tmp_path: Path) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path)
    mounted = Mounted(tmp_path, old.issue(HOST))
    async with serving(settings(mounted)) as address:
        assert await answers(address, old)
        certificate = new.issue(HOST)
        mounted.write(cert=certificate.cert_file, key=certificate.key_file)
        assert await answers(address, new)
        assert not await answers(address, old)


async def test_it_is_told_when_the_certificate_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a new one that nobody has connected for yet."""
    monkeypatch.setattr("vscan.rpc.certificate_end._LOOK_EVERY_SECONDS", 0.01)
    authority, reader = Authority(tmp_path), InMemoryMetricReader()
    days = [authority.issue_server(HOST, valid_from=timedelta(days=-1), valid_for=timedelta(days=1 + left)) for left in (5, 90)]
    mounted = Mounted(tmp_path, days[0])
    telemetry = Telemetry(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    async with serving_decoder(ToyDecoder(), settings(mounted), telemetry):
        await until(lambda: days_left(reader) == 5)
        mounted.write(cert=days[1].cert_file, key=days[1].key_file)
        await until(lambda: days_left(reader) == 90)


def days_left(reader: InMemoryMetricReader) -> int | None:
    """Of the certificate, to the nearest one."""
    data: Any = reader.get_metrics_data()
    found = [] if data is None else [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    ends = [m.data.data_points[0].value for m in found if m.name == names.METRIC_CERTIFICATE_EXPIRY.name]
    return round((ends[0] - time.time()) / 86_400) if ends else None


async def test_a_connection_outlives_the_certificate_it_was_made_with(tmp_path: Path) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path)
    mounted = Mounted(tmp_path, old.issue(HOST))
    async with (
        serving(settings(mounted)) as address,
        open_channel(address, tls=ClientTls(ca_file=old.ca_file)) as channel,
    ):
        stub: Any = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
        await stub.Describe(decoder_pb2.DescribeDecoderRequest(), timeout=20)
        certificate = new.issue(HOST)
        mounted.write(cert=certificate.cert_file, key=certificate.key_file)
        assert await answers(address, new)
        await stub.Describe(decoder_pb2.DescribeDecoderRequest(), timeout=20)


async def test_half_a_rotation_is_waited_for_and_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path)
    mounted = Mounted(tmp_path, old.issue(HOST))
    certificate = new.issue(HOST)
    async with serving(settings(mounted)) as address:
        with caplog.at_level(logging.WARNING, logger=LOG):
            mounted.write(cert=certificate.cert_file)
            assert await answers(address, old)
            assert await answers(address, old)
        (warning,) = caplog.messages
        assert "do not fit" in warning
        mounted.write(key=certificate.key_file)
        assert await answers(address, new)


@pytest.mark.parametrize("content", [b"", b"no certificate", None])
async def test_a_bad_file_leaves_the_certificate_before(tmp_path: Path, content: bytes | None) -> None:
    authority = Authority(tmp_path)
    mounted = Mounted(tmp_path, authority.issue(HOST))
    async with serving(settings(mounted)) as address:
        mounted.cert.unlink()
        if content is not None:
            mounted.cert.write_bytes(content)
        assert await answers(address, authority)
        certificate = authority.issue(HOST)
        mounted.write(cert=certificate.cert_file, key=certificate.key_file)
        assert await answers(address, authority)


async def test_a_folder_that_is_swapped_by_its_link_as_kubernetes_does(tmp_path: Path) -> None:
    old, new = Authority(tmp_path), Authority(tmp_path)
    folders = [tmp_path / "..1", tmp_path / "..2"]
    for folder, authority in zip(folders, (old, new), strict=True):
        folder.mkdir()
        Mounted(folder, authority.issue(HOST))
    data = tmp_path / "..data"
    data.symlink_to(folders[0])
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).symlink_to(data / name)
    linked = RpcSettings(tls_cert_file=tmp_path / "tls.crt", tls_key_file=tmp_path / "tls.key", drain_seconds=5)
    async with serving(linked) as address:
        assert await answers(address, old)
        swapped = tmp_path / "..tmp"
        swapped.symlink_to(folders[1])
        swapped.replace(data)
        assert await answers(address, new)
        assert not await answers(address, old)


async def test_a_new_ca_of_the_clients_lets_in_new_ones_and_no_others(tmp_path: Path) -> None:
    authority, old, new = Authority(tmp_path), Authority(tmp_path), Authority(tmp_path)
    mounted = Mounted(tmp_path, authority.issue(HOST), ca=old.ca_file)
    of_old, of_new = old.issue("decoder@example.org"), new.issue("decoder@example.org")
    async with serving(settings(mounted, tls_client_ca_file=mounted.ca)) as address:
        assert await answers(address, authority, of_old)
        assert not await answers(address, authority, of_new)
        mounted.write(ca=new.ca_file)
        assert await answers(address, authority, of_new)
        assert not await answers(address, authority, of_old)
        mounted.ca.write_text("no CA")
        assert await answers(address, authority, of_new)
        assert not await answers(address, authority)  # in no case one without a certificate


def handshake(address: str, version: ssl.TLSVersion) -> str | None:
    """The version that was agreed upon; None where the server refused it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT@SECLEVEL=0")  # else this side would refuse old versions itself
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        try:
            with context.wrap_socket(plain) as secured:
                return secured.version()
        except ssl.SSLError as error:
            if error.reason in ("TLSV1_ALERT_PROTOCOL_VERSION", "UNEXPECTED_EOF_WHILE_READING"):  # gRPC hangs up
                return None
            raise


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_tls_is_1_2_at_least(tmp_path: Path) -> None:
    mounted = Mounted(tmp_path, Authority(tmp_path).issue(HOST))
    async with serving(settings(mounted)) as address:
        agreed = [await asyncio.to_thread(handshake, address, version) for version in list(ssl.TLSVersion)[2:6]]
    assert agreed == [None, None, "TLSv1.2", "TLSv1.3"]
