"""Real decoders for tests: made by the same wiring as `python -m decoder_service`, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from decoder_service.config import DecoderSettings
from decoder_service.wiring import RunningDecoder, running_decoder
from vscan.telemetry.providers import Telemetry

PARITY = Path(__file__).parents[1] / "data" / "parity"
PARITY_CHECKPOINT = PARITY / "llava15"


def decoder_settings(**changes: Any) -> DecoderSettings:
    """For tests: any free port, the parity checkpoint, no Redis, one thread, quick to find an encoder, no draining."""
    usual: dict[str, Any] = {
        "bind": "127.0.0.1:0",
        "model": PARITY_CHECKPOINT,
        "redis_url": "",
        "redis_timeout_ms": 30_000,
        "torch_threads": 1,
        "drain_seconds": 0.0,
        "encoder_retry_seconds": 0.02,
        "encoder_refresh_seconds": 0.2,
    }
    return DecoderSettings(**usual | changes)


@asynccontextmanager
async def in_process_decoder(
    encoder_address: str, *, telemetry: Telemetry | None = None, ready: bool = True, **changes: Any
) -> AsyncIterator[RunningDecoder]:
    """A decoder in front of that encoder; with `ready`, once it is."""
    settings = decoder_settings(encoder_address=encoder_address, **changes)
    async with running_decoder(settings, telemetry or Telemetry()) as decoder:
        if ready:
            await decoder.readiness.wait_ready()
        yield decoder
