"""A whole deployment for tests: encoder, decoder and, if wanted, Redis; in this process, or each in its own.

async with in_process_stack() as stack:
    answer = await stack.ask(chat("w7", IMAGE))

with process_stack(tmp_path, redis=redis) as stack:
    stack.decoder_address
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decoder_service.wiring import RunningDecoder
from tests.support.decoder import PARITY_CHECKPOINT, in_process_decoder
from tests.support.encoder import RunningEncoder, running_encoder
from tests.support.redis_server import RedisServer, free_port
from tests.support.service_process import ServiceProcess
from vscan.telemetry.providers import Telemetry

Settings = dict[str, Any]


# The deployment's own choice, where the encoder's tests have the one of the parity cases.
_ENCODER: Settings = {"shallow_layer": None, "window": None, "batch_wait_ms": 0.0, "redis_timeout_ms": 30_000}


@dataclass(frozen=True, slots=True)
class Stack:
    """Where the two services are, and their insides."""

    encoder_address: str
    decoder_address: str
    encoder: RunningEncoder
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
        running_encoder(of_encoder, **_ENCODER | both | (encoder or {})) as running,
        in_process_decoder(running.address, telemetry=of_decoder, **both | (decoder or {})) as decoder_,
    ):
        yield Stack(running.address, decoder_.address, running, decoder_)


@dataclass(slots=True)
class ProcessStack:
    """Both services as processes of their own; each can be ended and started again at the same address."""

    encoder: ServiceProcess
    decoder: ServiceProcess
    redis: RedisServer | None

    def start(self) -> None:
        """Starts both at once and waits until they are ready."""
        self.encoder.launch()
        self.decoder.launch()
        self.encoder.wait_ready()
        self.decoder.wait_ready()

    def stop(self) -> tuple[int | None, int | None]:
        """Ends both in order; the exit codes of encoder and decoder."""
        decoder = self.decoder.stop()
        return self.encoder.stop(), decoder

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
    encoder_process.address = f"127.0.0.1:{free_port()}"  # known before it is open, so that both can start at once
    of_decoder = both | {"encoder_address": encoder_process.address} | (decoder or {})
    decoder_process = ServiceProcess("decoder", folder, of_decoder, environment=environment)
    stack = ProcessStack(encoder_process, decoder_process, redis)
    try:
        stack.start()
        yield stack
    finally:
        decoder_process.stop()
        encoder_process.stop()
