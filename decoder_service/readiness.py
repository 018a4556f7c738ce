"""Whether this decoder can answer: the model is loaded and warm, the encoder fits, the engine lives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LOADING = "the model is being loaded"
ENGINE_DEAD = "the engine has failed and needs a restart"
ENGINE_WEDGED = "the engine's step does not end"


class Readiness:
    """Collects reasons not to be ready, and tells the health service when they change. Belongs to one event loop.

    Args:
        tell: `(ready, why)`; called with every change.
    """

    def __init__(self, tell: Callable[[bool, str], Awaitable[None]]) -> None:
        self._tell = tell
        self._reasons: dict[str, str] = {"model": LOADING}
        self._told: str | None = None
        self._telling = asyncio.Lock()
        self._changed = asyncio.Event()

    @property
    def why_not(self) -> str:
        """All reasons on one line; empty if ready."""
        return "; ".join(self._reasons.values())

    def problem(self, part: str) -> str | None:
        """What is wrong with a part."""
        return self._reasons.get(part)

    async def set(self, part: str, problem: str | None) -> None:
        """What is wrong with a part ("model", "encoder", "engine"), or None if it is well."""
        if problem is None:
            self._reasons.pop(part, None)
        else:
            self._reasons[part] = problem
        async with self._telling:
            why = self.why_not
            if why != self._told:
                self._told = why
                await self._tell(not why, why)
        self._changed.set()

    async def wait_ready(self) -> None:
        """Returns once there is no reason left."""
        while self._reasons:
            self._changed.clear()
            await self._changed.wait()
