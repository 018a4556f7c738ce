"""The page's port: TLS with real clients, connections that do not do their part, and the end of a process."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from page_service.config import PageSettings
from page_service.server import RunningPage, running_page
from tests.support.certificates import Authority, Mounted
from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.pages import events, form, page_of
from tests.support.service_process import ServiceProcess
from tests.support.until import until

IMAGE = b"the bytes of an image"
REFUSED = ("ReadError", "ConnectError", "RemoteProtocolError", "WriteError")  # by when the client hears of it


def trusting(authority: Authority, *, client: Authority | None = None) -> ssl.SSLContext:
    """A browser's TLS, with a certificate of the other authority."""
    context = ssl.create_default_context(cafile=authority.ca_file)
    if client is not None:
        shown = client.issue("somebody@example.org")
        context.load_cert_chain(shown.cert_file, shown.key_file)
    return context


async def asks(page: RunningPage, context: ssl.SSLContext) -> str:
    """The name of the last event of a question over a connection of its own; or the kind of error."""
    async with httpx2.AsyncClient(base_url=f"https://{page.address}", verify=context, timeout=30) as client:
        try:
            return events((await client.post("/ask", files=form("q", IMAGE))).text)[-1][0]
        except httpx2.TransportError as error:
            return type(error).__name__


def over_tls(address: str, files: Mounted) -> AbstractAsyncContextManager[RunningPage]:
    """A page that wants certificates of browsers."""
    tls: dict[str, Any] = {"tls_cert_file": files.cert, "tls_key_file": files.key, "tls_client_ca_file": files.ca}
    return running_page(PageSettings(bind="127.0.0.1:0", decoder_address=(address,), drain_seconds=0, **tls))


@pytest.fixture
def mounted(tmp_path: Path) -> tuple[Authority, Authority, Mounted]:
    """Whom browsers trust, who signs theirs, and the files that a page is told."""
    server, people = Authority(tmp_path), Authority(tmp_path)
    return server, people, Mounted(tmp_path, server.issue("127.0.0.1"), people.ca_file)


async def test_over_tls_those_with_a_certificate_ask_and_new_files_hold_from_the_next_handshake(
    address: str, mounted: tuple[Authority, Authority, Mounted], tmp_path: Path
) -> None:
    server, people, files = mounted
    async with over_tls(address, files) as page:
        assert await asks(page, trusting(server, client=people)) == "finished"
        assert await asks(page, trusting(server)) in REFUSED
        assert await asks(page, trusting(server, client=server)) in REFUSED
        newer, newer_people = Authority(tmp_path), Authority(tmp_path)
        renewed = newer.issue("127.0.0.1")
        files.write(cert=renewed.cert_file, key=renewed.key_file, ca=newer_people.ca_file)
        assert await asks(page, trusting(server, client=people)) == "ConnectError"
        assert await asks(page, trusting(newer, client=people)) in REFUSED
        assert await asks(page, trusting(newer, client=newer_people)) == "finished"


async def test_a_certificate_that_is_no_longer_trusted_does_not_resume_its_session(
    address: str, mounted: tuple[Authority, Authority, Mounted], tmp_path: Path
) -> None:
    server, people, files = mounted
    async with over_tls(address, files) as page:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(server, client=people)
            context.maximum_version = version
            session = await asyncio.to_thread(talk, context, page.address, None)
            files.write(ca=Authority(tmp_path).ca_file)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(talk, context, page.address, session)
            files.write(ca=people.ca_file)


def talk(context: ssl.SSLContext, address: str, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Asks for the page over one connection. Raises where none comes of it."""
    host, port = address.split(":")
    with (
        socket.create_connection((host, int(port)), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=host, session=session) as tls,
    ):
        tls.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        if not tls.recv(12):
            raise ConnectionResetError
        return tls.session


async def test_it_asks_services_that_want_its_certificate(
    deployment: ScriptedDeployment, mounted: tuple[Authority, Authority, Mounted]
) -> None:
    server, people, files = mounted
    own = people.issue("page@example.org")
    wants = grpc.ssl_server_credentials(
        [(files.key.read_bytes(), files.cert.read_bytes())], people.ca_file.read_bytes(), require_client_auth=True
    )
    with serving(deployment, credentials=wants) as decoder:
        to_it: dict[str, Any] = {"encoder_address": (decoder,), "decoder_tls_ca_file": server.ca_file}
        for shown, state, last in (
            ({"decoder_tls_cert_file": own.cert_file, "decoder_tls_key_file": own.key_file}, "ready", "finished"),
            ({}, "away", "failed"),
        ):
            async with page_of(decoder, **to_it, **shown) as page:
                told = (await page.get("/state")).json()
                assert (told["decoder"]["state"], told["encoder"]["state"]) == (state, state)
                assert events((await page.post("/ask", files=form("q", IMAGE))).text)[-1][0] == last


async def test_who_says_nothing_is_let_go_and_one_too_many_is_not_let_in(
    address: str, mounted: tuple[Authority, Authority, Mounted]
) -> None:
    _, _, files = mounted
    for tls in ({}, {"tls_cert_file": files.cert, "tls_key_file": files.key}):
        async with page_of(address, max_connections=1, header_timeout_seconds=0.2, **tls) as page:
            silent, _ = await asyncio.open_connection(page.base_url.host, page.base_url.port)
            one_too_many, _ = await asyncio.open_connection(page.base_url.host, page.base_url.port)
            for reader in (one_too_many, silent):
                with suppress(ConnectionError):
                    assert await reader.read(1) == b""


async def test_a_page_that_stops_lets_answers_end_and_says_so_to_those_it_ends(
    address: str, deployment: ScriptedDeployment, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("tokens-are-not-for-browsers")
    process = ServiceProcess("page", tmp_path, {"decoder_address": address, "decoder_token_file": token, "drain_seconds": 600})

    async def is_told_to_end() -> None:
        told = process.log.read_text().count("SIGTERM")
        os.kill(process.pid, signal.SIGTERM)
        await until(lambda: process.log.read_text().count("SIGTERM") > told)

    deployment.hold_after_first_text.clear()
    try:
        await asyncio.to_thread(process.start)
        async with httpx2.AsyncClient(base_url=f"http://{process.address}", timeout=60) as client:
            short = asyncio.create_task(client.post("/ask", files=form("q", IMAGE)))
            await until(lambda: deployment.running == 1)
            await is_told_to_end()
            deployment.hold_after_first_text.set()
            assert events((await short).text)[-1][0] == "finished"
        assert await asyncio.to_thread(process.stop) == 0
        deployment.hold_after_first_text.clear()
        await asyncio.to_thread(process.start)
        async with httpx2.AsyncClient(base_url=f"http://{process.address}", timeout=60) as client:
            long = asyncio.create_task(client.post("/ask", files=form("q", IMAGE)))
            await until(lambda: deployment.running == 1)
            await is_told_to_end()
            assert await asyncio.to_thread(process.stop) == 0
            name, told = events((await long).text)[-1]
            assert (name, told["code"]) == ("failed", "stopping"), "a second signal does not wait for the answer"
        assert await asyncio.to_thread(deployment.cancelled.acquire, timeout=30)
    finally:
        process.kill()
    log = process.log.read_text()
    assert "Traceback" not in log
    assert "tokens-are-not" not in log
    assert dict(deployment.metadata[0])["authorization"] == "Bearer tokens-are-not-for-browsers"
