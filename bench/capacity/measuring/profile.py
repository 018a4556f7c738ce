"""From what was measured to a profile."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path

import redis

from bench.capacity.measuring.costs import Costs
from bench.capacity.measuring.decoders import DecoderMeasured, measure_decoders
from bench.capacity.measuring.encoders import EncoderMeasured, measure_encoder
from bench.capacity.measuring.questions import SIDE_PIXELS
from bench.capacity.profile import KvMemory, Profile
from bench.capacity.services import Services, kv_pages, services
from bench.harness import environment
from tests.support.asking import ask, chat, decoder_stub
from vscan_client import AsyncClient
from vscan_client.description import DecoderDescription

_BLOCK_ROWS = 16  # on a CPU


def measured_profile(folder: Path, model: Path, name: str, rounds: int) -> Profile:
    """Measures it, in a minute or two. `folder` is for logs."""
    encoder = measure_encoder(folder / "passes", model, rounds)
    with services(folder / "questions", model, decoders=2) as running:
        before = _redis_bytes(running)
        decoder = asyncio.run(measure_decoders(running, rounds))
        entries, entry_bytes, redis_bytes = _entries(running, before)
        described, token_bytes = asyncio.run(_described(running))
        pages = kv_pages(running.decoders[0])
    where, costs = environment(), Costs(_as_fast(encoder, decoder.speed.others_ms / encoder.image_ms), decoder)
    kv = _kv(json.loads((model / "config.json").read_text()), described, pages)
    return Profile(
        made=time.strftime("%Y-%m-%d"),
        device=f"one core of {where['processor']} for each replica, torch {where['torch']}, float32",
        model=name,
        notes=(
            f"Measured by `python -m bench.capacity measure`, {rounds} rounds; trimmed means.",
            f"Images are drawn JPEG files of {SIDE_PIXELS} x {SIDE_PIXELS} pixels where nothing else is said.",
            f"Redis' memory was taken over {entries} entries.",
        ),
        tiles=encoder.tiles,
        visual_rows=encoder.visual_rows,
        kept_rows=_kept_rows(decoder, encoder),
        probe_ms=decoder.speed.decoders_ms,
        others_probe_ms=decoder.speed.others_ms,
        encoder=costs.encoder(),
        decoder=costs.decoder(kv),
        cache=costs.cache(entry_bytes, redis_bytes),
        wire=costs.wire(token_bytes),
        client=costs.client(),
    )


def _as_fast(encoder: EncoderMeasured, factor: float) -> EncoderMeasured:
    """Its times on the machine as it was when everything else was measured."""
    return replace(encoder, pass_ms=encoder.pass_ms.times(factor), preprocess_ms=encoder.preprocess_ms.times(factor))


def _kept_rows(decoder: DecoderMeasured, encoder: EncoderMeasured) -> int:
    pruning = decoder.usual["hot"][0].answer.pruning
    return pruning[-1].tokens_after if pruning else encoder.visual_rows


def _redis_bytes(running: Services) -> int:
    with redis.Redis(port=running.redis.port) as server:
        return int(server.info("memory")["used_memory"])


def _entries(running: Services, before: int) -> tuple[int, float, float]:
    """How many entries there are, the bytes of one as written, and what Redis' memory grew by for each."""
    with redis.Redis(port=running.redis.port) as server:
        keys = list(server.scan_iter("vscan:vt:*"))
        grown = int(server.info("memory")["used_memory"]) - before
        return len(keys), float(server.strlen(keys[0])), grown / len(keys)


async def _described(running: Services) -> tuple[DecoderDescription, float]:
    """What the decoder says of itself, and the bytes of a token on the wire."""
    async with AsyncClient(server=running.addresses[0]) as client:
        described = (await client.describe()).decoder
    async with decoder_stub(running.addresses[0]) as stub:
        reply = await ask(stub, chat("red circle", max_new_tokens=32))
    return described, sum(delta.ByteSize() for delta in reply.deltas) / len(reply.tokens)


def _kv(config: dict[str, dict[str, int]], described: DecoderDescription, pages: int) -> KvMemory:
    text = config["text_config"]
    heads = text["num_attention_heads"]
    memory = KvMemory(
        layers=described.layers,
        prune_layers=described.prune_layers,
        kv_heads=text.get("num_key_value_heads", heads),
        head_dim=text.get("head_dim", text["hidden_size"] // heads),
        hidden_size=text["hidden_size"],
        itemsize_bytes=4,
        block_rows=_BLOCK_ROWS,
        cache_bytes=None,
    )
    return memory.model_copy(update={"cache_bytes": pages * memory.layout.page_bytes})
