"""Secrets stay where they are: whatever goes wrong, none is in a log, a trace, an error, an answer or a process list."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from redis import Redis

from tests.support.client_cli import vscan
from tests.support.decoder import PARITY_CHECKPOINT
from tests.support.encoder import png
from tests.support.identities import IdentitiesFile
from tests.support.otlp_collector import OtlpCollector
from tests.support.redis_server import RedisServer
from tests.support.stack import ProcessStack, process_stack
from vscan.errors import VScanError
from vscan_client import Client, Image, Retry

ONCE = Retry(attempts=1)
USER = "vscan"


@dataclass
class Secrets:
    """Every one that a deployment has, each in a file of its own; and whatever was said, by where."""

    folder: Path
    known: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """A new secret."""
        self.known[name] = secrets.token_urlsafe(32)
        path = self.folder / f"{name}.secret"
        path.write_text(f"{self.known[name]}\n")
        path.chmod(0o600)
        return path

    def hear(self, where: str, *what: object) -> None:
        """Remembers what was said."""
        self.said[where] = self.said.get(where, "") + " ".join(f"{one!r} {one}" for one in what)

    def found(self) -> list[tuple[str, str]]:
        """Which secret is where it must not be."""
        return [(where, name) for where, text in self.said.items() for name, secret in self.known.items() if secret in text]


@pytest.fixture
def hidden(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path)


@pytest.fixture
def people(tmp_path: Path, hidden: Secrets) -> IdentitiesFile:
    people = IdentitiesFile(tmp_path / "people")
    people.add("web", "shop")
    people.add("lab", "lab")
    people.limit("lab", requests_per_second=0.001, burst=1)
    people.add("decoder", on_behalf_of=True)
    hidden.known |= {f"token of {name}": token for name, token in people.tokens.items()}
    return people


@pytest.fixture
def locked_redis(tmp_path: Path, hidden: Secrets) -> Iterator[RedisServer]:
    """One that knows one user, by a password."""
    hidden.file("redis")
    users = tmp_path / "users.acl"
    users.write_text(f"user default off\nuser {USER} on >{hidden.known['redis']} ~* &* +@all\n")
    with RedisServer(options=["--aclfile", str(users)]) as server:
        yield server


def settings_of(kind: str, people: IdentitiesFile, hidden: Secrets, redis_url: str) -> dict[str, Any]:
    own: dict[str, Any] = {
        "identities_file": people.path,
        "redis_url": redis_url,
        "redis_password_file": hidden.folder / "redis.secret",
        "cache_secret_file": hidden.folder / "cache.secret",
        "log_level": "debug",
        "log_format": "json" if kind == "decoder" else "text",
        "trace_console": kind == "encoder",
        "drain_seconds": 1,
    }
    return own | ({"encoder_token_file": people.token_file("decoder")} if kind == "decoder" else {})


def every_kind_of_error(stack: ProcessStack, people: IdentitiesFile, hidden: Secrets) -> None:
    """Asks as it should be asked and as it should not."""
    image = png(7)
    tokens = {**people.tokens, "stranger": hidden.known["stranger"]}
    for token in tokens.values():
        with Client(server=stack.decoder_address, encoder=stack.encoder_address, token=token, retry=ONCE) as client:
            asked = (
                lambda client=client: client.ask(image, "w7"),
                lambda client=client: client.ask(b"not an image", "w7"),
                lambda client=client: client.ask(Image(sha256=bytes(32)), "w7"),
                lambda client=client: client.ask(image, "w7", timeout=0.001),
                lambda client=client: client.encode(b"not an image"),
                lambda client=client: client.describe(),
            )
            for ask in asked:
                try:
                    hidden.hear("answers", ask())  # type: ignore[no-untyped-call]
                except VScanError as error:
                    hidden.hear("errors", error, vars(error))
    with grpc.insecure_channel(stack.encoder_address) as channel:
        call: Any = channel.unary_unary("/vscan.v1.VisionEncoder/Describe", bytes, bytes)
        for more in (("x-vscan-tenant", "shop"), ("x-vscan-on-behalf-of", "shop"), ("authorization", "Bearer x")):
            for token in tokens.values():
                with pytest.raises(grpc.RpcError) as refused:
                    call(b"\xff", metadata=(("authorization", f"Bearer {token}"), more), timeout=20)
                hidden.hear("errors", refused.value)


def test_no_secret_is_told(people: IdentitiesFile, hidden: Secrets, locked_redis: RedisServer, tmp_path: Path) -> None:
    for name in ("cache", "stranger"):
        hidden.file(name)
    url = f"redis://{USER}@127.0.0.1:{locked_redis.port}/0"
    with OtlpCollector() as collector:
        otlp = {"otlp_endpoint": collector.endpoint}
        of_encoder, of_decoder = (settings_of(kind, people, hidden, url) | otlp for kind in ("encoder", "decoder"))
        with process_stack(
            tmp_path,
            checkpoint=PARITY_CHECKPOINT,
            encoder=of_encoder,
            decoder=of_decoder,
            environment={"OTEL_BSP_SCHEDULE_DELAY": "100"},
        ) as stack:
            every_kind_of_error(stack, people, hidden)
            with Redis(port=locked_redis.port, username=USER, password=hidden.known["redis"]) as redis:
                assert redis.dbsize() > 0  # the password was used
            for name, token_file in ((name, people.token_file(name)) for name in people.tokens):
                ran = vscan("describe", "--server", stack.decoder_address, "--token-file", token_file)
                hidden.hear(f"vscan describe as {name}", ran.out, ran.err)
            for service in (stack.encoder, stack.decoder):
                processes = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]
                hidden.hear("process list", *(process.cmdline() for process in processes))
            # A token where its hash belongs, a Redis that is away, one that knows another password, an encoder that is away.
            people.path.write_text(f'[[identities]]\nname = "web"\ntoken_sha256 = "{people.tokens["web"]}"\n')
            stack.encoder.wait_until(lambda: "cannot be used" in stack.encoder.log.read_text(), "tell of the bad file")
            locked_redis.kill()
            every_kind_of_error(stack, people, hidden)
            stack.encoder.kill()
            with Client(server=stack.decoder_address, token=people.tokens["web"], retry=ONCE) as client, suppress(VScanError):
                client.ask(png(8), "w7")
            collector.wait_until(lambda spans: any(span.failed for span in spans))
            hidden.hear("traces", *collector.spans)
        for service in (stack.encoder, stack.decoder):
            hidden.hear(f"log of {service.kind}", service.log.read_text())
    assert '"level": "debug"' in hidden.said["log of decoder"]
    assert '"identity": "web"' in hidden.said["log of decoder"]
    assert "UNAUTHENTICATED" in hidden.said["log of encoder"]
    assert hidden.found() == []


def test_no_password_is_told_where_redis_does_not_take_it(
    people: IdentitiesFile, hidden: Secrets, locked_redis: RedisServer, tmp_path: Path
) -> None:
    """The password of the server, a wrong one, and those that Sentinels would ask for."""
    for name in ("cache", "stranger", "sentinel", "wrong"):
        hidden.file(name)
    of_encoder = settings_of("encoder", people, hidden, f"redis+sentinel://{USER}@127.0.0.1:{locked_redis.port}/name")
    of_encoder |= {
        "redis_sentinel_username": USER,
        "redis_sentinel_password_file": hidden.folder / "sentinel.secret",
    }
    of_decoder = settings_of("decoder", people, hidden, f"redis://{USER}@127.0.0.1:{locked_redis.port}/0")
    of_decoder |= {"redis_password_file": hidden.folder / "wrong.secret"}
    with process_stack(tmp_path, checkpoint=PARITY_CHECKPOINT, encoder=of_encoder, decoder=of_decoder) as stack:
        every_kind_of_error(stack, people, hidden)
    for service in (stack.encoder, stack.decoder):
        hidden.hear(f"log of {service.kind}", service.log.read_text())
    assert hidden.found() == []


def test_a_file_that_everybody_may_read_is_told(people: IdentitiesFile, hidden: Secrets, tmp_path: Path) -> None:
    for name in ("redis", "cache", "stranger"):
        hidden.file(name)
    (hidden.folder / "redis.secret").chmod(0o644)
    (hidden.folder / "cache.secret").chmod(0o440)  # as Kubernetes mounts it for the pod's group
    people.path.chmod(0o666)
    of_encoder, of_decoder = (settings_of(kind, people, hidden, "") for kind in ("encoder", "decoder"))
    with process_stack(tmp_path, checkpoint=PARITY_CHECKPOINT, encoder=of_encoder, decoder=of_decoder) as stack:
        logs = [service.log.read_text() for service in (stack.encoder, stack.decoder)]
    for log in logs:
        assert f"redis_password_file: {hidden.folder / 'redis.secret'} is open to everybody" in log
        assert f"identities_file: {people.path} can be written by everybody" in log
        assert "cache_secret_file: " not in log
