"""The page's own server, running, and its answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from page_service.config import PageSettings
from page_service.server import running_page

Files = list[tuple[str, tuple[str | None, bytes | str]]]


@asynccontextmanager
async def page_of(decoder: str, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A page on a free port, and a client that calls it by its address."""
    usual: dict[str, Any] = {"bind": "127.0.0.1:0", "decoder_address": (decoder,), "drain_seconds": 0.0}
    told = PageSettings(**usual | settings)
    # Not to read the system's CAs for each test.
    options: dict[str, Any] = {"timeout": 30, "verify": False}
    async with running_page(told) as page, httpx2.AsyncClient(base_url=f"http://{page.address}", **options) as client:
        yield client


def form(question: str = "what is it", *visuals: bytes | str, budget: str = "avg:11.1%") -> Files:
    """What a browser sends: files as they are, texts as they are."""
    parts: Files = [("question", (None, question)), ("budget", (None, budget))]
    for visual in visuals:
        parts.append(("visual", ("a.png", visual) if isinstance(visual, bytes) else (None, visual)))
    return parts


def events(text: str) -> list[tuple[str, Any]]:
    """Server-sent events by name."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in blocks]
