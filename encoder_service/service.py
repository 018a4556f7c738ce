"""An encoder's life: warm up, open the port, serve, stop in order."""

from __future__ import annotations

import asyncio

from encoder_service.image_encoder import ImageEncoder
from encoder_service.pipeline import Pipeline
from vscan.cache.tiers import TieredCache
from vscan.errors import InternalError
from vscan.rpc.server import RpcServer
from vscan.v1 import encoder_pb2

SERVICE = encoder_pb2.DESCRIPTOR.services_by_name["VisionEncoder"].full_name


class EncoderService:
    """Everything that runs, made by `encoder_service.wiring.build`."""

    def __init__(self, rpc: RpcServer, encoder: ImageEncoder, pipeline: Pipeline, cache: TieredCache) -> None:
        self.encoder = encoder
        self._rpc = rpc
        self._pipeline = pipeline
        self._cache = cache
        self._death = ""
        self._dying: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Warms up, finds out about Redis, then opens the port and is ready. Returns the bound `host:port`.

        Raises:
            StartupError: the port cannot be opened.
            InternalError: the model cannot encode.
        """
        await self._pipeline.start(self.encoder.defaults, self._worker_died)
        await self._cache.decide()
        address = await self._rpc.start()
        self._rpc.watch_over(*self._pipeline.hearts)  # not before: first passes may compile for minutes
        await self._rpc.set_ready(SERVICE, True)
        return address

    async def wait(self) -> None:
        """Serves until it is told to stop, and drains. Raises InternalError if the device's worker died: it needs a restart."""
        await self._rpc.wait_for_termination()
        if self._death:
            raise InternalError(self._death)

    async def stop(self) -> None:
        """Stops serving, then what serves. Idempotent."""
        await self._rpc.stop()
        await self.encoder.aclose()
        await self._pipeline.aclose()
        await self._cache.aclose()

    def _worker_died(self, why: str) -> None:
        self._death = why
        self._dying = asyncio.create_task(self._rpc.set_ready(SERVICE, False, why))
        self._rpc.ask_to_stop()
