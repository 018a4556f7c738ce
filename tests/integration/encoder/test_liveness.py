"""An encoder whose device does not come back from a pass."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.support.encoder import png, running_encoder
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
