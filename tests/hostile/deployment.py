"""Live services to be attacked: Redis, an encoder, a decoder, its gateway, and a decoder whose encoder is not to be trusted.

cases ──▶ decoder ──▶ encoder            both with Redis and no memory of their own, so that every answer goes all the way
      ├─▶ gateway ──▶ decoder
      └─▶ decoder behind ──▶ Spoiler ──▶ encoder
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from tests.hostile.case import ENCODE
from tests.hostile.http_talk import MODEL
from tests.support.qwen import shared_qwen
from tests.support.redis_server import RedisServer, free_port
from tests.support.service_process import ServiceProcess
from tests.support.stack import process_stack
from vscan.v1 import encoder_pb2

ROOM: list[tuple[str, Any]] = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
IMAGE_WORKERS = 2
_DESCRIBE = "/vscan.v1.VisionEncoder/Describe"
_ENCODER: dict[str, Any] = {"cache_memory_bytes": 0, "redis_timeout_ms": 30_000, "image_workers": IMAGE_WORKERS}
_DECODER: dict[str, Any] = {"cache_memory_bytes": 0, "redis_timeout_ms": 30_000, "model_alias": MODEL}

Spoil = Callable[[encoder_pb2.EncodeResponse], None]


class Spoiler:
    """A vision encoder that hands on what another one says, but for the images that it was told to answer badly."""

    def __init__(self, encoder: Any) -> None:
        self._calls = {path: encoder.unary_unary(path) for path in (_DESCRIBE, ENCODE)}
        self._spoils: dict[bytes, Spoil] = {}

    def spoil(self, image: bytes, how: Spoil) -> None:
        """From now on the tokens of this image come so."""
        self._spoils[sha256(image).digest()] = how

    def handlers(self) -> Any:
        """Takes and gives bytes: what it says need not be a message."""
        methods = {"Describe": self._described, "Encode": self._encoded}
        return grpc.method_handlers_generic_handler(
            "vscan.v1.VisionEncoder",
            {name: grpc.unary_unary_rpc_method_handler(call) for name, call in methods.items()},
        )

    async def _described(self, request: bytes, context: Any) -> bytes:
        reply: bytes = await self._calls[_DESCRIBE](request)
        return reply

    async def _encoded(self, request: bytes, context: Any) -> bytes:
        reply = encoder_pb2.EncodeResponse.FromString(await self._calls[ENCODE](request))
        spoil = self._spoils.get(reply.report.sha256)
        if spoil is not None:
            spoil(reply)
        return reply.SerializeToString()


@dataclass(frozen=True, slots=True)
class Deployment:
    """All that runs."""

    redis: RedisServer
    encoder: ServiceProcess
    decoder: ServiceProcess
    behind: ServiceProcess  # the decoder whose encoder is the spoiler
    spoiler: Spoiler
    gateway: ServiceProcess

    @property
    def services(self) -> dict[str, ServiceProcess]:
        """By name."""
        return {"encoder": self.encoder, "decoder": self.decoder, "behind": self.behind, "gateway": self.gateway}


@asynccontextmanager
async def deployed(folder: Path) -> AsyncIterator[Deployment]:
    """Everything, ready. The model takes images and videos, and writes any text (byte-level tokens). Logs go into `folder`."""
    checkpoint, _ = shared_qwen()
    second = folder / "behind"
    second.mkdir()
    with (
        RedisServer() as redis,
        process_stack(folder, checkpoint=checkpoint, redis=redis, encoder=_ENCODER, decoder=_DECODER) as stack,
    ):
        async with _spoiling(stack.encoder_address) as (spoiler, address):
            settings = {**_DECODER, "redis_url": "", "torch_threads": 1, "model": checkpoint, "encoder_address": address}
            behind = ServiceProcess("decoder", second, settings)
            gateway = ServiceProcess("gateway", folder, {"decoder_address": stack.decoder_address})
            try:
                gateway.start()
                await _started(behind)
                yield Deployment(redis, stack.encoder, stack.decoder, behind, spoiler, gateway)
            finally:
                gateway.stop()
                behind.stop()


@asynccontextmanager
async def _spoiling(encoder_address: str) -> AsyncIterator[tuple[Spoiler, str]]:
    async with grpc.aio.insecure_channel(encoder_address, options=ROOM) as channel:
        spoiler = Spoiler(channel)
        server = grpc.aio.server(options=ROOM)
        server.add_generic_rpc_handlers((spoiler.handlers(),))
        port = server.add_insecure_port(f"127.0.0.1:{free_port()}")
        await server.start()
        try:
            yield spoiler, f"127.0.0.1:{port}"
        finally:
            await server.stop(None)


async def _started(service: ServiceProcess) -> None:
    """In a thread: it asks the spoiler, which lives in this loop."""

    def start() -> None:
        service.launch()
        service.wait_ready()

    await asyncio.to_thread(start)
