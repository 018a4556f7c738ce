"""A decoder whose engine does not come back from a step."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from decoder_service import wiring
from decoder_service.runner.runner import Runner
from decoder_service.wiring import serve
from tests.support.asking import ask, chat, decoder_stub
from tests.support.decoder import decoder_settings
from tests.support.service_process import health_of
from tests.support.stack import in_process_stack
from tests.support.until import until
from vscan.errors import InternalError
from vscan.rpc.readiness import LIVENESS
from vscan.telemetry.providers import Telemetry

PATIENCE_SECONDS = 60
PROMPT = "w1 w2"


class Blocked:
    """Makes steps wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.entered = threading.Event(), threading.Event()
        run = Runner.run

        def blocked_step(runner: Runner, pieces: Sequence[Any], copies: Sequence[Any]) -> Any:
            self.entered.set()
            assert self.go_on.wait(PATIENCE_SECONDS)
            return run(runner, pieces, copies)

        monkeypatch.setattr(Runner, "run", blocked_step)


async def is_alive(address: str, service: str = LIVENESS) -> bool:
    return (await asyncio.to_thread(health_of, address, service))[0]


async def test_a_wedged_engine_is_noticed_and_forgiven(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        in_process_stack(decoder={"stall_seconds": 0.2}) as stack,
        decoder_stub(stack.decoder_address) as stub,
    ):
        blocked = Blocked(monkeypatch)
        asked = asyncio.create_task(ask(stub, chat(PROMPT)))
        await until(blocked.entered.is_set)

        async def is_wedged() -> bool:
            return not await is_alive(stack.decoder_address)

        await until(is_wedged, what="the wedged engine to be noticed")
        assert stack.decoder.server.not_ready_reason() == "the engine gets nowhere"
        (told,) = [record.getMessage() for record in caplog.records if "has finished nothing" in record.getMessage()]
        assert "blocked_step" in told  # the stack of its thread
        assert PROMPT not in told
        blocked.go_on.set()
        assert len((await asked).ids) > 0
        await until(lambda: is_alive(stack.decoder_address), what="the engine to be forgiven")
        await until(lambda: stack.decoder.server.not_ready_reason() == "", what="the decoder to be ready again")


async def test_an_engine_without_work_is_alive() -> None:
    """However long it waits."""
    async with in_process_stack(decoder={"stall_seconds": 0.05}) as stack, decoder_stub(stack.decoder_address) as stub:
        for _ in range(3):
            await ask(stub, chat(PROMPT))
        heart = stack.decoder.engine.heart
        await until(lambda: heart.since is None, what="the engine to rest")
        assert await is_alive(stack.decoder_address)
        assert stack.decoder.server.not_ready_reason() == ""


async def test_a_wedged_engine_does_not_hold_up_the_end_which_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wiring, "_ENGINE_STOP_SECONDS", 0.1)
    ready_file = tmp_path / "address"
    settings = decoder_settings(encoder_address="127.0.0.1:1", ready_file=ready_file)
    serving = asyncio.create_task(serve(settings, Telemetry()))
    await until(ready_file.is_file, what="the port to open")
    async with decoder_stub(ready_file.read_text()) as stub:
        with caplog.at_level(logging.INFO, logger="vscan.rpc"):
            await until(lambda: _answers(stub), what="the model to be loaded")
        blocked = Blocked(monkeypatch)
        asked = asyncio.create_task(ask(stub, chat(PROMPT)))
        await until(blocked.entered.is_set)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(InternalError, match="step does not end"):
            await serving
        blocked.go_on.set()
        with pytest.raises(Exception, match="the service stopped before the call ended"):
            await asked


async def _answers(stub: Any) -> bool:
    try:
        return len((await ask(stub, chat("w1"))).ids) == 6
    except Exception:
        return False
