"""Clients and commands that show who they are."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client.test_tls import credentials
from tests.support.certificates import Authority
from tests.support.client_cli import vscan
from tests.support.client_decoder import ScriptedDeployment, serving
from vscan.errors import InvalidArgument, Unauthenticated
from vscan_client import AsyncClient, Client, Tls

TOKEN = "a-token-that-nobody-sees"


def shown(deployment: ScriptedDeployment) -> list[Any]:
    return [metadata.get("authorization") for metadata in deployment.metadata]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "me.token"
    path.write_text(f"{TOKEN}\n")
    return path


def test_every_call_shows_the_token(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address, encoder=address, token=TOKEN) as client:
        client.ask(b"cat", "what?")
        client.encode(b"dog")
        client.describe()
    assert shown(deployment) == [f"Bearer {TOKEN}"] * 2


async def test_a_file_is_read_again_and_a_function_asked_at_each_call(
    deployment: ScriptedDeployment, address: str, token_file: Path
) -> None:
    async with AsyncClient(server=address, token_file=token_file) as client:
        await client.ask(b"cat", "what?")
        token_file.write_text("another")  # noqa: ASYNC240
        await client.ask(b"cat", "what?")
    tokens = iter("ab")
    async with AsyncClient(server=address, token=lambda: next(tokens)) as client:
        for _ in range(2):
            await client.ask(b"cat", "what?")
    assert shown(deployment) == [f"Bearer {TOKEN}", "Bearer another", "Bearer a", "Bearer b"]


def test_over_tls(deployment: ScriptedDeployment, tmp_path: Path, token_file: Path) -> None:
    authority = Authority(tmp_path)
    with (
        serving(deployment, credentials=credentials(authority)) as address,
        Client(server=address, tls=Tls(ca_file=authority.ca_file), token_file=token_file) as client,
    ):
        client.ask(b"cat", "what?")
    assert shown(deployment) == [f"Bearer {TOKEN}"]


def test_not_in_plaintext_to_another_machine(token_file: Path) -> None:
    with Client(server="192.0.2.1:7070", token_file=token_file) as client, pytest.raises(InvalidArgument, match="plaintext"):
        client.ask(b"cat", "what?")


def test_who_is_not_known_does_not_ask_again(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_with = [Unauthenticated("not known")] * 3
    with Client(server=address, token=TOKEN) as client, pytest.raises(Unauthenticated):
        client.ask(b"cat", "what?")
    assert len(deployment.requests) == 1


def test_one_source_at_most(token_file: Path) -> None:
    with pytest.raises(InvalidArgument, match="one of the two"):
        Client(token=TOKEN, token_file=token_file)


def test_nothing_shows_the_token(deployment: ScriptedDeployment, address: str, token_file: Path) -> None:
    deployment.fail_with = [Unauthenticated("not known")]
    for source in ({"token": TOKEN}, {"token_file": token_file}, {"token": lambda: TOKEN}):
        with Client(server=address, **source) as client:
            told = [repr(client), repr(vars(client)), repr(vars(client._client)), repr(client._client._bearer)]
            deployment.fail_with = [Unauthenticated("not known")]
            with pytest.raises(Unauthenticated) as caught:
                client.ask(b"cat", "what?")
            told += [repr(caught.value), str(caught.value)]
        assert TOKEN not in "".join(told)


# ── The command line


def test_commands_read_it_from_a_file(
    deployment: ScriptedDeployment, address: str, tmp_path: Path, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").write_bytes(b"cat")
    lines = tmp_path / "questions.jsonl"
    lines.write_text('{"id": "1", "image": "cat.png", "question": "what?"}\n')
    of_decoder, of_encoder = ("--server", address), ("--encoder", address)
    commands: list[tuple[object, ...]] = [
        ("ask", tmp_path / "cat.png", "what?", *of_decoder),
        ("ask-many", lines, *of_decoder),
        ("encode", tmp_path / "cat.png", *of_encoder),
        ("describe", *of_decoder),
    ]
    for command in commands:
        ran = vscan(*command, "--token-file", token_file)
        assert ran.code == 0, ran.err
        assert TOKEN not in ran.out + ran.err
    seen = len(deployment.metadata)
    assert shown(deployment) == [f"Bearer {TOKEN}"] * seen
    deployment.known.clear()
    monkeypatch.setenv("VSCAN_TOKEN_FILE", str(token_file))
    assert vscan("warm", tmp_path, *of_encoder).code == 0
    assert shown(deployment)[seen:] == [f"Bearer {TOKEN}"]


def test_a_file_that_is_not_there_is_named(address: str, tmp_path: Path) -> None:
    ran = vscan("describe", "--server", address, "--token-file", tmp_path / "gone")
    assert ran.code == 2
    assert ran.one_line == f"vscan: token_file: {tmp_path / 'gone'} cannot be read: No such file or directory"


def test_making_a_token(tmp_path: Path) -> None:
    path = tmp_path / "new.token"
    ran = vscan("token", path)
    token = path.read_text().strip()
    assert ran.code == 0
    assert ran.out == f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
    assert token not in ran.out
    assert len(token) == 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = vscan("token", path)  # one that is used is not lost
    assert again.code == 2
    assert "File exists" in again.one_line
    assert path.read_text().strip() == token


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden@127.0.0.1:1/0",
        "redis://user:hidden@127.0.0.1:1/0",
        "rediss://127.0.0.1:1/0?password=hidden",
        "redis+sentinel://user:hidden@127.0.0.1:1/name",
        "hidden://:hidden@",
    ],
)
def test_a_password_on_a_command_line_is_refused(url: str) -> None:
    for command in (
        ("serve", "encoder", "--redis-url", url),
        ("serve", "decoder", "-s", f"redis_url={url}"),
        ("serve", "decoder", "-s", f"REDIS-URL={url}"),
        ("up", "--redis-url", url),
        ("up", "-s", f"decoder.redis_url={url}"),
        ("up", "-s", f"encoder.redis-url={url}"),
    ):
        ran = vscan(*command)
        assert ran.code == 2
        assert "--redis-password-file" in ran.one_line
        assert "hidden" not in ran.out + ran.err
