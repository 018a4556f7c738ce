"""Real gateways for tests, in this process, and OpenAI's own client in front of them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI

from gateway_service.config import GatewaySettings
from gateway_service.wiring import RunningGateway, running_gateway
from vscan.telemetry.providers import Telemetry


@asynccontextmanager
async def in_process_gateway(
    decoder_address: str, *, telemetry: Telemetry | None = None, **changes: Any
) -> AsyncIterator[RunningGateway]:
    """A gateway in front of that decoder, on any free port, without draining."""
    usual: dict[str, Any] = {"bind": "127.0.0.1:0", "decoder_address": decoder_address, "drain_seconds": 0.0}
    async with running_gateway(GatewaySettings(**usual | changes), telemetry or Telemetry()) as gateway:
        yield gateway


def openai_client(address: str, token: str, **options: Any) -> AsyncOpenAI:
    """Tries once, so that errors are seen as they come."""
    return AsyncOpenAI(base_url=f"http://{address}/v1", api_key=token, max_retries=0, **options)


def video_part(video: bytes) -> dict[str, Any]:
    """As vLLM's clients send one."""
    return {"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{base64.b64encode(video).decode()}"}}


def image_part(image: bytes) -> dict[str, Any]:
    """As OpenAI's clients send one."""
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(image).decode()}"}}


def question(text: str, *images: bytes) -> list[Any]:
    """A user's message."""
    return [{"role": "user", "content": [*map(image_part, images), {"type": "text", "text": text}]}]
