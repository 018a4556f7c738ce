"""The state of what the page depends on, as one line each. Asked at most once a second, however many pages look."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from page_service.config import PageSettings
from vscan.errors import VScanError
from vscan.rpc.address import parse_address
from vscan_client import AsyncClient
from vscan_client.jsonable import jsonable

_REMEMBERED_S = 1.0
_PATIENCE_S = 2.0
READY, AWAY, UNTOLD = "ready", "away", "not told"


class Health:
    """Asks the services about themselves.

    Args:
        settings: where they are.
        decoder, encoder: clients of each that do not try again, so that the answer is about now.
    """

    def __init__(self, settings: PageSettings, decoder: AsyncClient, encoder: AsyncClient) -> None:
        self._settings, self._of_decoder, self._of_encoder = settings, decoder, encoder
        self._lock = asyncio.Lock()
        self._known: dict[str, Any] = {}
        self._known_until = 0.0

    async def state(self) -> dict[str, Any]:
        """`decoder`, `encoder` and `redis`, each with its `state` and `words`; of a ready decoder also what it serves."""
        async with self._lock:
            if time.monotonic() >= self._known_until:
                decoder, encoder, redis = await asyncio.gather(self._decoder(), self._encoder(), self._redis())
                self._known = {"decoder": decoder, "encoder": encoder, "redis": redis}
                self._known_until = time.monotonic() + _REMEMBERED_S
            return self._known

    async def _decoder(self) -> dict[str, Any]:
        address = ", ".join(self._settings.decoder_address)
        try:
            known = (await self._of_decoder.describe(timeout=_PATIENCE_S)).decoder
        except VScanError as error:
            return _part(AWAY, f"{address} does not answer: {error.message}")
        layers = ", ".join(map(str, known.prune_layers)) or "none"
        words = f"{known.model} ({known.family}), {known.layers} layers, prunes before layer {layers}"
        return _part(READY, words) | {"max_images": known.limits.get("max_images"), "default": jsonable(known.reduction)}

    async def _encoder(self) -> dict[str, Any]:
        if not self._settings.encoder_address:
            return _part(UNTOLD, "this page was not told where it is (VSCAN_PAGE_ENCODER_ADDRESS)")
        try:
            known = await self._of_encoder.describe_encoder(timeout=_PATIENCE_S)
        except VScanError as error:
            return _part(AWAY, f"{', '.join(self._settings.encoder_address)} does not answer: {error.message}")
        return _part(READY, f"{known.tokens_per_tile} tokens a tile, {known.dtype}")

    async def _redis(self) -> dict[str, Any]:
        if self._settings.redis_address is None:
            return _part(UNTOLD, "this page was not told where it is (VSCAN_PAGE_REDIS_ADDRESS)")
        address = parse_address(self._settings.redis_address)
        if await _answers(address.host, address.port):
            return _part(READY, f"answers at {address}")
        return _part(AWAY, f"{address} does not answer; images are encoded again, answers are the same")


def _part(state: str, words: str) -> dict[str, Any]:
    return {"state": state, "words": words}


async def _answers(host: str, port: int) -> bool:
    """Whether a Redis takes commands; one that first wants a password is there too."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith((b"+PONG", b"-NOAUTH"))
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):  # of another service, a line without end
        return False
