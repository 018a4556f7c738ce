"""A whole deployment for tests: encoder, decoder and, if wanted, Redis; in this process, or each in its own.

async with in_process_stack() as stack:
    answer = await stack.ask(chat("w7", IMAGE))

with process_stack(tmp_path, redis=redis) as stack:
    stack.decoder_address
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decoder_service.wiring import RunningDecoder
from encoder_service.__main__ import build
from encoder_service.config import EncoderSettings
from encoder_service.service import EncoderService
from tests.support.decoder import PARITY_CHECKPOINT, in_process_decoder
from tests.support.redis_server import RedisServer
from tests.support.service_process import ServiceProcess
from vscan.telemetry.providers import Telemetry

Settings = dict[str, Any]


def encoder_settings(**changes: Any) -> EncoderSettings:
    """For tests: any free port, the parity checkpoint, no Redis, one thread, no waiting for company, no draining."""
    usual: Settings = {
        "bind": "127.0.0.1:0",
        "model": PARITY_CHECKPOINT,
        "redis_url": "",
        "redis_timeout_ms": 30_000,
        "torch_threads": 1,
        "batch_wait_ms": 0.0,
        "drain_seconds": 0.0,
    }
    return EncoderSettings(**usual | changes)


@asynccontextmanager
async def in_process_encoder(
    *, telemetry: Telemetry | None = None, **changes: Any
) -> AsyncIterator[tuple[EncoderService, str]]:
    """An encoder that serves, and its address."""
    service = await build(encoder_settings(**changes), telemetry or Telemetry())
    try:
        yield service, await service.start()
    finally:
        await service.stop()


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the two services are."""

    encoder_address: str
    decoder_address: str
    decoder: RunningDecoder


@asynccontextmanager
async def in_process_stack(
    *,
    checkpoint: Path = PARITY_CHECKPOINT,
    redis: RedisServer | None = None,
    encoder: Settings | None = None,
    decoder: Settings | None = None,
    telemetry: tuple[Telemetry, Telemetry] | None = None,
) -> AsyncIterator[Stack]:
    """Both services in this process, on real gRPC, ready. `telemetry`: the encoder's and the decoder's."""
    both: Settings = {"model": checkpoint, "redis_url": redis.url if redis else ""}
    of_encoder, of_decoder = telemetry or (Telemetry(), Telemetry())
    async with (
        in_process_encoder(telemetry=of_encoder, **both | (encoder or {})) as (_, address),
        in_process_decoder(address, telemetry=of_decoder, **both | (decoder or {})) as running,
    ):
        yield Stack(address, running.address, running)


@dataclass(slots=True)
class ProcessStack:
    """Both services as processes of their own; each can be ended and started again at the same address."""

    encoder: ServiceProcess
    decoder: ServiceProcess
    redis: RedisServer | None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def encoder_address(self) -> str:
        """`host:port`."""
        return self.encoder.address

    @property
    def decoder_address(self) -> str:
        """`host:port`."""
        return self.decoder.address


@contextmanager
def process_stack(
    folder: Path,
    *,
    checkpoint: Path | None = None,
    redis: RedisServer | None = None,
    encoder: Settings | None = None,
    decoder: Settings | None = None,
    environment: dict[str, str] | None = None,
) -> Iterator[ProcessStack]:
    """Both services, ready, started as users start them. Without `checkpoint` the embedded model. Logs go into `folder`."""
    both: Settings = {"redis_url": redis.url if redis else "", "torch_threads": 1} | (
        {"model": checkpoint} if checkpoint else {}
    )
    encoder_process = ServiceProcess("encoder", folder, both | (encoder or {}), environment=environment)
    decoder_process = ServiceProcess("decoder", folder, both | (decoder or {}), environment=environment)
    stack = ProcessStack(encoder_process, decoder_process, redis)
    try:
        encoder_process.start()
        decoder_process.settings["encoder_address"] = encoder_process.address
        decoder_process.start()
        encoder_process.wait_ready()
        decoder_process.wait_ready()
        yield stack
    finally:
        decoder_process.stop()
        encoder_process.stop()
