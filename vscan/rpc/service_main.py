"""The frame of a service's `__main__`: settings, logs, telemetry, and a refusal to start in one line."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeAlias, TypeVar

from vscan.config import ServiceSettings, load_settings, spell_out
from vscan.errors import VScanError
from vscan.rpc.hard_limit import HardLimit
from vscan.rpc.settings import ListenSettings
from vscan.secret_files import warn_of_open_files
from vscan.telemetry.log_writer import write_from_a_thread
from vscan.telemetry.logs import configure_logging
from vscan.telemetry.process import watched_process
from vscan.telemetry.providers import Telemetry
from vscan.telemetry.settings import TelemetrySettings
from vscan.telemetry.setup import setup_telemetry

S = TypeVar("S", bound=ServiceSettings)
Serve: TypeAlias = Callable[[S, Telemetry, Callable[[float], None]], Coroutine[Any, Any, None]]
_LAST_LINES_SECONDS = 1.0


def run_service(
    service_name: str,
    settings_class: type[S],
    serve: Serve[S],
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Loads the settings, sets up logs and telemetry, runs `serve` to its end, and returns the exit code.

    A refusal to start (`StartupError`, or any other error of ours that `serve` lets through) is one line on stderr and code 1.

    Args:
        service_name: for traces, metrics and that line: `vscan-decoder`.
        settings_class: a `ServiceSettings` that is also a `TelemetrySettings` and a `ListenSettings`.
        serve: starts everything, waits for termination, stops everything. Its last argument is to be told once that begins to
            stop, for how many seconds at most it may go on (`RpcServer`'s `on_stopping`): the process does not outlive them.
        overrides: settings given on the command line.
    """
    signal.signal(signal.SIGTERM, end_at_once)  # until the server drains instead
    try:
        settings = load_settings(settings_class, overrides)
        assert isinstance(settings, TelemetrySettings)
        writer = write_from_a_thread(configure_logging(log_format=settings.log_format, log_level=settings.log_level))
        try:
            _serve_to_the_end(service_name, serve, settings)
        finally:
            read = writer.wait_written(_LAST_LINES_SECONDS)
    except VScanError as error:
        line = " ".join(spell_out(error.message, settings_class, overrides).split())
        print(f"{service_name}: {line}", file=sys.stderr)
        return 1
    if not read:
        os._exit(0)  # the interpreter's own end would wait for a pipe that nobody reads
    return 0


def _serve_to_the_end(service_name: str, serve: Serve[S], settings: S) -> None:
    warn_of_open_files(settings)
    assert isinstance(settings, ListenSettings)
    assert isinstance(settings, TelemetrySettings)
    telemetry = setup_telemetry(service_name, settings, tls=settings.server_tls, insecure=settings.insecure)
    try:
        asyncio.run(_serve_watched(serve, settings, telemetry))
    finally:
        telemetry.shutdown()


def end_at_once(number: int, frame: object) -> None:
    """Nobody is served yet. Without a handler the first process of a container would ignore the signal."""
    os._exit(128 + number)


async def _serve_watched(serve: Serve[S], settings: S, telemetry: Telemetry) -> None:
    async with watched_process(telemetry.meter):
        await serve(settings, telemetry, HardLimit().start)
