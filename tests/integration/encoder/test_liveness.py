"""An encoder whose device does not come back from a pass."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.encoder import (
    PARITY_SETTINGS,
    encode_request,
    encoder_channel,
    encoder_environment,
    encoder_stub,
    png,
    running_encoder,
)
from tests.support.service_process import health_of
from tests.support.until import until
from vscan.rpc.readiness import LIVENESS

PATIENCE_SECONDS = 60


async def test_a_wedged_device_is_noticed_and_forgiven(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_encoder(stall_seconds=0.2) as encoder:
        await encoder.encode(png(1))
        model = encoder.service._pipeline._model
        look, go_on = model.look, threading.Event()

        def blocked_pass(*arguments: Any) -> Any:
            assert go_on.wait(PATIENCE_SECONDS)
            return look(*arguments)

        monkeypatch.setattr(model, "look", blocked_pass)
        asked = asyncio.create_task(encoder.encode(png(2)))

        async def alive() -> bool:
            return (await asyncio.to_thread(health_of, encoder.address, LIVENESS))[0]

        async def wedged() -> bool:
            return not await alive()

        await until(wedged, what="the wedged device to be noticed")
        ready, why = await asyncio.to_thread(health_of, encoder.address, "")
        assert not ready
        assert why == "the device worker gets nowhere"
        (told,) = [record.getMessage() for record in caplog.records if "has finished nothing" in record.getMessage()]
        assert "blocked_pass" in told
        go_on.set()
        assert (await asked).visual_tokens.tokens.data
        await until(alive, what="the device to be forgiven")


# Once it is ready, its device does not come back from anything; and the end may take less time than usual.
WEDGED = """
import sys, threading
from encoder_service import __main__, batcher
from vscan.rpc import server

def wedged(heart, *arguments):
    heart.begin()
    threading.Event().wait()

async def set_ready(self, *arguments):
    batcher._attempt = wedged
    await really(self, *arguments)

really, server.RpcServer.set_ready = server.RpcServer.set_ready, set_ready
server._END_SECONDS = 2.0
sys.exit(__main__.main())
"""


def started(settings: dict[str, Any], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        command = [sys.executable, "-c", WEDGED]
        return subprocess.Popen(command, env=encoder_environment(settings), stdout=output, stderr=output)


async def test_a_wedged_device_does_not_keep_the_process(tmp_path: Path) -> None:
    ready_file, log = tmp_path / "address", tmp_path / "log"
    settings = {**PARITY_SETTINGS, "drain_seconds": 0.5, "stall_seconds": 0.2, "torch_threads": 1, "ready_file": ready_file}
    process = started(settings, log)
    try:
        await until(ready_file.is_file, what="the port to open")
        async with encoder_channel(ready_file.read_text()) as channel:
            asked = encoder_stub(channel).Encode(encode_request(png(1)), timeout=60)
            await until(lambda: _is_wedged(ready_file.read_text()), what="the request to be in the device's hands")
            process.send_signal(signal.SIGTERM)
            with pytest.raises(Exception, match="the service stopped before the call ended"):
                await asked
        assert await asyncio.to_thread(process.wait, 60) == 1
    finally:
        process.kill()
    text = log.read_text()
    assert "the process did not end within 2.5 s and is ended now" in text
    assert "in wedged" in text  # where its thread is


async def _is_wedged(address: str) -> bool:
    return not (await asyncio.to_thread(health_of, address, LIVENESS))[0]
