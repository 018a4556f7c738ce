"""Redis, an encoder and a decoder on this machine, as child processes that live and end together.

    with LocalStack(model=Path("llava-1.5-7b-hf")) as stack:
        Client(server=stack.addresses.decoder).ask(...)

    LocalStack ─┬─ redis-server              a free loopback port
                ├─ python -m encoder_service  ◀─ VSCAN_ENCODER_…   → ready file → health
                ├─ python -m decoder_service  ◀─ VSCAN_DECODER_…   → ready file → health (once it pairs with the encoder)
                ├─ python -m gateway_service  ◀─ VSCAN_GATEWAY_…  → ready file; only where it is wanted
                └─ python -m page_service     ◀─ VSCAN_PAGE_…      → ready file; only where it is wanted

Each child is told its settings by its environment, so what the caller's environment sets (`VSCAN_DECODER_MAX_QUEUE`) holds too.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from vscan.errors import StartupError
from vscan.rpc.address import Address, parse_address
from vscan_client.cli import redis_program
from vscan_client.cli.child import Child, OnLine
from vscan_client.cli.health import HealthCheck
from vscan_client.cli.held_port import HeldPort
from vscan_client.cli.preflight import check_local

REDIS, ENCODER, DECODER, GATEWAY, PAGE = "redis", "encoder", "decoder", "gateway", "page"
DEFAULT_DECODER_BIND = "127.0.0.1:7070"
DEFAULT_ENCODER_BIND = "127.0.0.1:7071"
ANY_PORT = "127.0.0.1:0"
_POLL_S = 0.05
# A local stack is stopped by a person who waits for the prompt.
_DRAIN_S = 5.0
_KILL_AFTER_S = _DRAIN_S + 10.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts of a stack are reached."""

    decoder: str
    encoder: str
    redis_url: str
    page: str | None = None
    gateway: str | None = None


@dataclass(frozen=True, slots=True)
class Death:
    """A part ended that nobody asked to."""

    name: str
    why: str


def _threads_each() -> int:
    """Half of this machine's cores for each service: with all of them each, their threads wait for one another."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


class LocalStack:
    """Starts the three, in a `with` or by `start` and `stop`. Not for several threads at once.

    Args:
        model: checkpoint directory; `None`: the embedded model.
        decoder_bind, encoder_bind: where to listen; port 0 takes a free one.
        redis_url: a Redis that runs already; `None` starts one, "" does without.
        redis_max_memory: of the Redis that is started.
        otlp_endpoint: collector that the services send traces to.
        settings: more settings, by service and name: `{"decoder": {"prune_layers": "4"}}`.
        environment: variables for the children on top of this process' own.
        on_line: gets every line that a child writes; called from threads.
        page_bind: where a page for browsers listens; `None`: there is none.
        gateway_bind: where a gateway for OpenAI's clients listens; `None`: there is none.
        start_timeout_s: how long the services may take to become ready, each.
    """

    def __init__(
        self,
        *,
        model: Path | None = None,
        decoder_bind: str = DEFAULT_DECODER_BIND,
        encoder_bind: str = DEFAULT_ENCODER_BIND,
        redis_url: str | None = None,
        redis_max_memory: str = "256mb",
        otlp_endpoint: str | None = None,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        environment: Mapping[str, str] | None = None,
        on_line: OnLine | None = None,
        page_bind: str | None = None,
        gateway_bind: str | None = None,
        start_timeout_s: float = 600.0,
    ) -> None:
        self._model = model
        optional = {GATEWAY: gateway_bind, PAGE: page_bind}
        self._binds = {ENCODER: encoder_bind, DECODER: decoder_bind} | {name: bind for name, bind in optional.items() if bind}
        self._redis_url = redis_url
        self._redis_max_memory = redis_max_memory
        self._otlp_endpoint = otlp_endpoint
        self._settings = settings or {}
        self._environment = {**os.environ, **(environment or {})}
        self._on_line: OnLine = on_line or (lambda name, line: None)
        self._start_timeout_s = start_timeout_s
        self._children: dict[str, Child] = {}
        self._bound: dict[str, str] = {}
        self._ended: queue.SimpleQueue[Child | None] = queue.SimpleQueue()
        self._spawner: ThreadPoolExecutor | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def addresses(self) -> Addresses:
        """Where everything is; once started."""
        page, gateway = (self._bound.get(name) for name in (PAGE, GATEWAY))
        return Addresses(self._bound[DECODER], self._bound[ENCODER], self._bound[REDIS], page, gateway)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs."""
        return {name: child.pid for name, child in self._children.items() if child.running}

    def start(self) -> Addresses:
        """Starts everything and waits until it is ready.

        Raises:
            StartupError: one line that says which part does not start, and why. Nothing is left running.
        """
        check_local(self._model, self._binds)
        # Its one thread stays until the end: the kernel ends children with the thread that made them.
        self._spawner = ThreadPoolExecutor(1, thread_name_prefix="vscan-stack")
        self._folder = tempfile.TemporaryDirectory(prefix="vscan-")
        try:
            self._bound[REDIS] = self._start_redis() if self._redis_url is None else self._redis_url
            with self._held_encoder_port():
                self._start_service(ENCODER)
                self._start_service(DECODER)
                self._wait_for_port(ENCODER)
            for name in (ENCODER, DECODER):
                self._wait_until_ready(name)
            if GATEWAY in self._binds:
                self._start_gateway()
            if PAGE in self._binds:
                self._start_page()
        except BaseException:
            self.stop()
            raise
        return self.addresses

    def stop(self) -> None:
        """Ends everything: the decoder first, which needs the encoder while it drains. Safe to call again."""
        if self._spawner is None:
            return
        try:
            self._spawner.submit(lambda: None).result()  # whatever is being started is among the children now
            for name in (PAGE, GATEWAY, DECODER, ENCODER, REDIS):
                self._end(name)
        finally:
            for child in self._children.values():
                child.kill()
            for child in self._children.values():
                child.wait(_KILL_AFTER_S)
            self._spawner.shutdown()
            self._spawner = None
            if self._folder is not None:
                self._folder.cleanup()

    def wait(self) -> Death | None:
        """Waits until a part ends that nobody asked to, and says which and why; `None` after `interrupt`."""
        while (child := self._ended.get()) is not None:
            if not child.expected:
                return Death(child.name, child.why_ended())
        return None

    def interrupt(self) -> None:
        """Ends a `wait`; for signal handlers and other threads."""
        self._ended.put(None)

    def restart(self, *names: str, kill: bool = False) -> None:
        """Ends these parts, in order or by force, and starts them again where they were. Redis comes back empty."""
        for name in names:
            if kill:
                self._children[name].kill()
            self._end(name)
        for name in names:
            if name == REDIS:
                self._run_redis(urlsplit(self._bound[REDIS]).port or 0)
            else:
                self._binds[name] = self._bound[name]
                self._start_service(name)
        for name in names:
            if name != REDIS:
                self._wait_until_ready(name)

    def reconfigure(self, settings: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """Gives the services these settings in place of those before, and starts those again whose settings differ.

        A service that is down, because it did not start with its settings before, is started in any case.

        Returns:
            their names.

        Raises:
            StartupError: one does not start with them. The others run on.
        """
        before, self._settings = self._settings, settings
        running = self.pids
        changed = tuple(
            name
            for name in (ENCODER, DECODER)
            if dict(before.get(name, {})) != dict(settings.get(name, {})) or name not in running
        )
        self.restart(*changed)
        return changed

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def _start_redis(self) -> str:
        with HeldPort() as held:
            self._run_redis(held.port)
        return f"redis://127.0.0.1:{held.port}/0"

    def _run_redis(self, port: int) -> None:
        program = redis_program.redis_server_program()
        command = redis_program.redis_command(program, port, max_memory=self._redis_max_memory)
        self._spawn(REDIS, command, self._environment)
        self._wait_for(REDIS, lambda: redis_program.answers(port), lambda: "did not answer")

    @contextmanager
    def _held_encoder_port(self) -> Iterator[None]:
        """The decoder is told the encoder's address while both start, so a free port must be chosen before it is bound."""
        address = parse_address(self._binds[ENCODER])
        if address.port != 0:
            self._bound[ENCODER] = self._binds[ENCODER]
            yield
            return
        with HeldPort(address.host) as held:
            self._bound[ENCODER] = self._binds[ENCODER] = str(Address(address.host, held.port))
            yield

    def _start_service(self, name: str) -> None:
        self._ready_file(name).unlink(missing_ok=True)
        # -P: what lies in the caller's folder is not imported.
        command = [sys.executable, "-P", "-m", f"{name}_service"]
        prefix = f"VSCAN_{name.upper()}_"
        settings = {prefix + key.upper(): value for key, value in self._settings_of(name).items()}
        defaults = {prefix + "DRAIN_SECONDS": str(_DRAIN_S), prefix + "TORCH_THREADS": str(_threads_each())}
        self._spawn(name, command, {**defaults, **self._environment, **settings})

    def _start_gateway(self) -> None:
        self._start_client(GATEWAY, self._settings.get(GATEWAY, {}), {"drain_seconds": str(_DRAIN_S)})

    def _start_page(self) -> None:
        settings = {"encoder_address": self._bound[ENCODER]}
        redis = urlsplit(self._bound[REDIS])
        if redis.scheme == "redis" and redis.hostname:
            settings["redis_address"] = str(Address(redis.hostname, redis.port or 6379))
        self._start_client(PAGE, settings, {"drain_seconds": str(_DRAIN_S)})

    def _start_client(self, name: str, settings: Mapping[str, str], defaults: Mapping[str, str]) -> None:
        """Starts what asks the decoder over HTTP, once that is ready; `defaults` hold unless the environment says otherwise."""
        own = {
            "bind": self._binds[name],
            "decoder_address": self._bound[DECODER],
            "ready_file": str(self._ready_file(name)),
            **({} if self._otlp_endpoint is None else {"otlp_endpoint": self._otlp_endpoint}),
            **settings,
        }
        before, after = ({f"VSCAN_{name}_{key}".upper(): value for key, value in values.items()} for values in (defaults, own))
        self._spawn(name, [sys.executable, "-P", "-m", f"{name}_service"], {**before, **self._environment, **after})
        self._wait_for_port(name)

    def _settings_of(self, name: str) -> dict[str, str]:
        settings = {"bind": self._binds[name], "redis_url": self._bound[REDIS], "ready_file": str(self._ready_file(name))}
        if self._model is not None:
            settings["model"] = str(self._model.resolve())
        if self._otlp_endpoint is not None:
            settings["otlp_endpoint"] = self._otlp_endpoint
        if name == DECODER:
            settings["encoder_address"] = self._bound[ENCODER]
        return {**settings, **self._settings.get(name, {})}

    def _spawn(self, name: str, command: list[str], environment: Mapping[str, str]) -> Child:
        assert self._spawner is not None

        def make() -> Child:
            child = Child(name, command, environment=environment, on_line=self._on_line, on_end=lambda: self._ended.put(child))
            self._children[name] = child
            return child

        return self._spawner.submit(make).result()

    def _ready_file(self, name: str) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{name}.ready"

    def _wait_for_port(self, name: str) -> None:
        ready_file = self._ready_file(name)
        self._wait_for(name, ready_file.exists, lambda: "did not open its port")
        self._bound[name] = ready_file.read_text().strip()

    def _wait_until_ready(self, name: str) -> None:
        self._wait_for_port(name)
        with HealthCheck(self._bound[name]) as health:
            self._wait_for(name, health.is_serving, lambda: f"was not ready ({health.why_not or 'no reason given'})")

    def _wait_for(self, name: str, condition: Callable[[], bool], what_it_did: Callable[[], str]) -> None:
        give_up = time.monotonic() + self._start_timeout_s
        while not condition():
            self._raise_a_death()
            if time.monotonic() > give_up:
                raise StartupError(f"{name} {what_it_did()} within {self._start_timeout_s:g} s")
            time.sleep(_POLL_S)

    def _raise_a_death(self) -> None:
        while not self._ended.empty():
            child = self._ended.get()
            if child is not None and not child.expected:
                raise StartupError(f"{child.name}: {child.why_ended()}")

    def _end(self, name: str) -> None:
        child = self._children.get(name)
        if child is None:
            return
        child.terminate()
        if not child.wait(_KILL_AFTER_S):
            child.kill()
            child.wait(_KILL_AFTER_S)
