"""A client's certificates that are renewed while it asks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.support.certificates import Authority, Certificate, Mounted
from tests.support.toy_services import ToyDecoder, raw, serving_decoder
from tests.support.until import until
from vscan.errors import InvalidArgument
from vscan.rpc.channel import ClientTls, open_channel
from vscan.rpc.renewed_channel import RenewedChannel
from vscan.rpc.settings import RpcSettings
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

HOST = "127.0.0.1"


class Callers:
    """A server that keeps who asked, by the names in their certificates."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        own = self.authority.issue(HOST)
        self.settings = RpcSettings(
            tls_cert_file=own.cert_file, tls_key_file=own.key_file, tls_client_ca_file=self.authority.ca_file, drain_seconds=5
        )
        self.go_on = asyncio.Event()
        self.names: list[str] = []
        self.servicer = ToyDecoder(self._wait, on_call=self._note)

    async def _wait(self, word: str) -> None:
        if word == "wait":
            await self.go_on.wait()

    def _note(self, context: Any) -> None:
        self.names.append(context.auth_context()["x509_subject_alternative_name"][0].decode())


class Opened:
    """A renewed channel to an address, and all channels that it opened."""

    def __init__(self, address: str, tls: ClientTls) -> None:
        self.channels: list[grpc.aio.Channel] = []
        self._address = address
        self.renewed = RenewedChannel(self._connect, tls)

    def _connect(self, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        self.channels.append(open_channel(self._address, tls=credentials))
        return self.channels[-1]

    async def describe(self) -> None:
        with self.renewed.use() as channel:
            await stub(channel).Describe(decoder_pb2.DescribeDecoderRequest(), timeout=20)


def stub(channel: grpc.aio.Channel) -> Any:
    return decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]


def mounted_tls(folder: Path, certificate: Certificate, authority: Authority) -> tuple[Mounted, ClientTls]:
    mounted = Mounted(folder, certificate, ca=authority.ca_file)
    return mounted, ClientTls(ca_file=mounted.ca, cert_file=mounted.cert, key_file=mounted.key)


async def test_the_next_call_has_the_new_certificate_and_a_running_one_ends_in_peace(tmp_path: Path) -> None:
    callers = Callers(tmp_path)
    first, second = (callers.authority.issue(f"{name}@example.org") for name in ("first", "second"))
    mounted, tls = mounted_tls(tmp_path, first, callers.authority)
    async with serving_decoder(callers.servicer, callers.settings) as (_, address):
        opened = Opened(address, tls)
        with opened.renewed.use() as channel:
            running = stub(channel).Generate(raw("one wait two"))
            await running.read()
            await opened.describe()
            assert len(opened.channels) == 1
            mounted.write(cert=second.cert_file, key=second.key_file)
            await opened.describe()
            await opened.describe()
            assert len(opened.channels) == 2
            callers.go_on.set()
            words = [event.delta.text async for event in running if event.WhichOneof("event") == "delta"]
        await until(lambda: opened.channels[0].get_state() is grpc.ChannelConnectivity.SHUTDOWN, what="the old one to close")
        assert opened.channels[1].get_state() is not grpc.ChannelConnectivity.SHUTDOWN
        await opened.renewed.aclose()
    assert words == ["one", "wait", "two"]
    assert [name.partition("@")[0] for name in callers.names] == ["first", "first", "second", "second"]
    assert opened.channels[1].get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_a_connection_that_is_idle_is_closed_though_the_next_call_goes_on(tmp_path: Path) -> None:
    callers = Callers(tmp_path)
    first, second = (callers.authority.issue(f"{name}@example.org") for name in ("first", "second"))
    mounted, tls = mounted_tls(tmp_path, first, callers.authority)
    async with serving_decoder(callers.servicer, callers.settings) as (_, address):
        opened = Opened(address, tls)
        await opened.describe()
        mounted.write(cert=second.cert_file, key=second.key_file)
        with opened.renewed.use() as channel:
            running = stub(channel).Generate(raw("wait"))
            await running.read()
            before, _ = opened.channels
            await until(lambda: before.get_state() is grpc.ChannelConnectivity.SHUTDOWN, what="the idle connection is closed")
            callers.go_on.set()
            while await running.read():
                pass
        await opened.renewed.aclose()


async def test_half_a_rotation_and_files_that_are_gone_leave_the_certificate_before(tmp_path: Path) -> None:
    callers = Callers(tmp_path)
    first, second = (callers.authority.issue(f"{name}@example.org") for name in ("first", "second"))
    mounted, tls = mounted_tls(tmp_path, first, callers.authority)
    async with serving_decoder(callers.servicer, callers.settings) as (_, address):
        opened = Opened(address, tls)
        mounted.write(cert=second.cert_file)
        await opened.describe()
        mounted.key.unlink()
        await opened.describe()
        mounted.write(key=second.key_file)
        await opened.describe()
        await opened.renewed.aclose()
    assert [name.partition("@")[0] for name in callers.names] == ["first", "first", "second"]


async def test_what_cannot_be_used_from_the_start_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue("a@example.org"), authority.issue("b@example.org")
    (tmp_path / "empty.pem").write_text("")
    for tls, field in (
        (ClientTls(cert_file=one.cert_file, key_file=other.key_file), "tls.cert_file"),
        (ClientTls(ca_file=tmp_path / "empty.pem"), "tls.ca_file"),
        (ClientTls(cert_file=tmp_path / "gone", key_file=other.key_file), "tls.cert_file"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            Opened("127.0.0.1:1", tls)
        assert caught.value.field == field
