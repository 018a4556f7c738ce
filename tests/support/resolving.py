"""A decoder's image resolver in front of a small encoder, both with caches of their own over one Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from decoder_service.encoder_link import EncoderLink
from decoder_service.images import ImageResolver
from decoder_service.media import ImageInput
from decoder_service.pairing import Fit
from tests.support.caches import tiered_cache
from tests.support.identities import IdentitiesFile
from tests.support.redis_server import RedisServer
from tests.support.small_encoder import SmallEncoder, serving
from tests.support.until import until
from vscan.rpc.bearer import Bearer
from vscan.rpc.channel import open_channel
from vscan.rpc.renewed_channel import RenewedChannel
from vscan.specs import ReductionSpec

FIT = Fit(pair_fingerprint=b"p" * 32, hidden_size=8)
ANYTHING = ReductionSpec()
# Quick to find an encoder, and no look at one that is there unless a test asks for it: so nothing is learned by accident.
TIMES: dict[str, Any] = {"retry_seconds": 0.01, "refresh_seconds": 3600.0, "describe_seconds": 30.0}


@asynccontextmanager
async def small_encoder(
    redis: RedisServer | None,
    bind: str = "127.0.0.1:0",
    *,
    memory_bytes: int = 2**24,
    people: IdentitiesFile | None = None,
    **fields: Any,
) -> AsyncIterator[tuple[SmallEncoder, str]]:
    """An encoder with empty memory, and its address. `people`: who may call it."""
    async with tiered_cache(redis, cache_memory_bytes=memory_bytes) as (cache, _):
        encoder = SmallEncoder(cache, **fields)
        async with serving(encoder, bind, identities_file=None if people is None else people.path) as address:
            yield encoder, address


@asynccontextmanager
async def resolver(
    redis: RedisServer | None,
    address: str,
    *,
    paired: bool = True,
    fit: Fit = FIT,
    tracer_provider: TracerProvider | None = None,
    token: str | Callable[[], str] | None = None,
    **times: Any,
) -> AsyncIterator[ImageResolver]:
    """A started resolver with empty memory; with `paired`, after it has found an encoder that fits. `token` shows it to it."""
    tracer = tracer_provider.get_tracer("test") if tracer_provider else None
    changes = {"tracer": tracer} if tracer else {}
    channel = open_channel(address, tracer_provider=tracer_provider)
    async with channel, tiered_cache(redis, **changes) as (cache, _):
        link = EncoderLink(RenewedChannel(lambda _: channel), fit, bearer=Bearer(token), **{**TIMES, **times})
        one = ImageResolver(link, cache, tracer=tracer)
        await one.start()
        try:
            if paired:
                await until(lambda: one.pairing_problem() is None, what="pairing")
            yield one
        finally:
            await one.aclose()


def inputs(*images: bytes) -> list[ImageInput]:
    """Images as bytes, or as digests where they have 32 bytes; named as in a chat."""
    return [
        ImageInput(f"messages[{n}].parts[0].image", **({"sha256": image} if len(image) == 32 else {"data": image}))
        for n, image in enumerate(images)
    ]
