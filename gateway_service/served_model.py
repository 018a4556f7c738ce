"""The model that is served: what the decoder says of itself, remembered for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gateway_service.http_errors import HttpRefusal
from gateway_service.json_fields import shown
from vscan_client import AsyncClient, DecoderDescription

_OWNER = "vscan-serve"
_SHOWN_CHARS = 100


class ServedModel:
    """Belongs to one event loop. `remembered_s`: how long a description holds, in seconds."""

    def __init__(self, *, remembered_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._remembered_s, self._clock = remembered_s, clock
        self._known: DecoderDescription | None = None
        self._asked_at = 0.0
        self._created = int(time.time())

    async def described(self, client: AsyncClient) -> DecoderDescription:
        """As it was told to anybody lately, else as it is told to this caller."""
        if self._known is not None and self._clock() - self._asked_at < self._remembered_s:
            return self._known
        return await self.ask(client)

    async def ask(self, client: AsyncClient) -> DecoderDescription:
        """As it is told to this caller now. Raises what the SDK does."""
        self._known = (await client.describe()).decoder
        self._asked_at = self._clock()
        return self._known

    async def check(self, client: AsyncClient, name: str) -> DecoderDescription:
        """The description, if this is the model. Raises HttpRefusal if it is another."""
        known = await self.described(client)
        if known.model != name:
            refuse_model(name)
        return known

    def entry(self, known: DecoderDescription) -> dict[str, Any]:
        """As `/v1/models` lists it. `created` is when this gateway was."""
        limit = known.limits.get("max_context_tokens")
        entry = {"id": known.model, "object": "model", "created": self._created, "owned_by": _OWNER}
        return entry | ({"max_model_len": limit} if limit else {})  # vLLM's name, which load generators read


def refuse_model(name: str) -> None:
    """Raises HttpRefusal as OpenAI does."""
    raise HttpRefusal(
        404,
        "model_not_found",
        f"The model `{shown(name, _SHOWN_CHARS)}` does not exist here; /v1/models lists what does",
        param="model",
    )
