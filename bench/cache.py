"""Repeated images at two encoders over one Redis: `python -m bench.cache --json FILE [--plot FILE]`.

A Zipf(1.0) stream of queries over drawn images, 8 clients, on `Encode`, with a random CLIP of 12 layers, hidden 384, 336 px.
The clients ask the two encoder processes in turn, so that an image that one has encoded is found in Redis by the other. Caches
are empty at the beginning; a short stream is mostly new images, and its throughput says little.

- `vit_passes_equals_distinct`: images that went through a vision transformer, less the distinct images of the stream.
- `throughput_vs_cache_off`: queries a second, over those of encoders without Redis and memory tier on the first 200 queries.
- `redis_hit_to_tensor_ms`: from a content key to its tensor through Redis, signed, 96 x 4096 bfloat16; median.
- `tenant_probe_auc`: how well the time of a look-up tells another tenant's digest from an unknown one, a half for not at all;
  the worst of `Lookup` and `Encode` by digest, with the tokens in memory and in Redis (`bench.tenant_probe`).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.encoder_fleet import Asked, EncoderFleet, running
from bench.harness import Check, Report, run
from bench.random_clip import ClipShape, write_checkpoint
from bench.tenant_probe import Probe, farthest, probe, standard_error
from studies.kept.cache import KIND, latencies_by_place, plot
from tests.support.encoder import png
from tests.support.redis_server import RedisServer
from tests.support.visual_values import body_of, key, make_tokens
from vscan.cache.entry import EntrySeal
from vscan.cache.place import Place
from vscan.cache.redis import RedisCache
from vscan.cache.settings import CacheSettings

_SHAPE = ClipShape(layers=12, hidden=384, heads=6, language_hidden=1024)
_ENCODERS = 2
_CLIENTS = 8
_SIDE_PIXELS = 336
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_MOST_TOLD = 0.05  # of an AUC beyond a half
_HIT_TOKENS, _HIT_HIDDEN = 96, 4096


@dataclass(frozen=True, slots=True)
class Measured:
    """A stream through a fleet."""

    asked: Sequence[Asked]
    seconds: float
    encoded: int

    @property
    def queries_per_second(self) -> float:
        """Over the whole stream, from empty caches on."""
        return len(self.asked) / self.seconds


def main() -> int:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description=__doc__)
    parser.add_argument("--queries", type=int, default=2000, help="length of the stream")
    parser.add_argument("--images", type=int, default=200, help="images that it draws from")
    parser.add_argument("--off-queries", type=int, default=200, help="the first so many are asked again without caches")
    parser.add_argument("--probe-pairs", type=int, default=2000, help="pairs of look-ups of each kind by another tenant")
    parser.add_argument("--seed", type=int, default=0, help="of the stream")
    parser.add_argument("--plot", type=Path, help="draw latencies here")
    return run("bench.cache", _measure, parser)


def zipf_stream(images: int, queries: int, seed: int) -> list[int]:
    """Images by rank, drawn with probability 1 / rank."""
    weights = 1 / np.arange(1, images + 1)
    drawn = np.random.default_rng(seed).choice(images, size=queries, p=weights / weights.sum())
    return [int(image) for image in drawn]


def _measure(arguments: argparse.Namespace) -> Report:
    stream = zipf_stream(arguments.images, arguments.queries, arguments.seed)
    images = [png(seed, (_SIDE_PIXELS, _SIDE_PIXELS)) for seed in range(arguments.images)]
    with tempfile.TemporaryDirectory() as name, RedisServer() as redis:
        folder = Path(name)
        settings: dict[str, Any] = {"model": write_checkpoint(folder / "model", _SHAPE), "shallow_layer": None, "window": None}
        hits_ms = asyncio.run(_redis_hits_ms(redis.url))
        probes = asyncio.run(probe(images, arguments.probe_pairs, **settings, redis_url=redis.url))
        cached = _stream(folder / "on", images, stream, settings | {"redis_url": redis.url})
        off = settings | {"redis_url": "", "cache_memory_bytes": 0}
        uncached = _stream(folder / "off", images, stream[: arguments.off_queries], off)
    report = _report(stream, cached, uncached, hits_ms, probes, arguments.probe_pairs)
    if arguments.plot:
        plot(latencies_by_place(report.raw), arguments.plot)
    return report


def _stream(folder: Path, images: Sequence[bytes], stream: Sequence[int], settings: dict[str, Any]) -> Measured:
    with running(EncoderFleet(folder, _ENCODERS, **settings)) as fleet:
        before = fleet.images_encoded()  # warming up
        began = time.perf_counter()
        asked = asyncio.run(fleet.ask_all(images, stream, _CLIENTS))
        return Measured(asked, time.perf_counter() - began, fleet.images_encoded() - before)


async def _redis_hits_ms(url: str, hits: int = 300) -> list[float]:
    """Reads of a signed entry, each verified and parsed."""
    link = RedisCache.from_settings(CacheSettings(redis_url=url)).link
    cache = RedisCache(link, seal=EntrySeal(b"a secret of 16 B"), ttl_seconds=3600)
    value = make_tokens(kept=_HIT_TOKENS, columns=288, hidden=_HIT_HIDDEN, dtype=torch.bfloat16)
    await cache.put(key("hit"), body_of(value))
    times = []
    for _ in range(hits):
        began = time.perf_counter()
        found = await cache.get(key("hit"))
        times.append((time.perf_counter() - began) * 1000)
        assert found is not None
        assert found.tokens.shape == value.tokens.shape
    await cache.aclose()
    return times


def _report(
    stream: Sequence[int],
    cached: Measured,
    uncached: Measured,
    hits_ms: Sequence[float],
    probes: Sequence[Probe],
    pairs: int,
) -> Report:
    ratio = cached.queries_per_second / uncached.queries_per_second
    by_place = _by_place(cached.asked)
    return Report(
        checks=[
            Check("vit_passes_equals_distinct", cached.encoded - len(set(stream)), "==", 0),
            Check("throughput_vs_cache_off", ratio, ">=", 3),
            Check("redis_hit_to_tensor_ms", statistics.median(hits_ms), "<=", 5),
            Check("tenant_probe_auc", farthest(probes), "<=", 0.5 + max(_MOST_TOLD, 4 * standard_error(pairs))),
        ],
        summary={
            "queries": len(stream),
            "distinct_images": len(set(stream)),
            "vit_passes": cached.encoded,
            "hit_rate": 1 - len(by_place.get(Place.ENCODED, [])) / len(stream),
            "share_by_place": {place.name.lower(): len(some) / len(stream) for place, some in by_place.items()},
            "latency_ms_by_place": {place.name.lower(): _quantiles(some) for place, some in by_place.items()},
            "queries_per_second": {"cached": cached.queries_per_second, "cache_off": uncached.queries_per_second},
            "cache_off_vit_passes": {"queries": len(uncached.asked), "passes": uncached.encoded},
            "latency_ms_cache_off": _quantiles([each.latency_ms for each in uncached.asked]),
            "redis_hit_to_tensor_ms": _quantiles(hits_ms),
            "probe_pairs": pairs,
            "probe_standard_error": standard_error(pairs),
        },
        raw=[{"kind": "tenant_probe", **asdict(one)} for one in probes]
        + [_raw(KIND, each) for each in cached.asked]
        + [_raw("cache_off", each) for each in uncached.asked],
    )


def _by_place(asked: Sequence[Asked]) -> dict[Place, list[float]]:
    """Latencies in milliseconds."""
    return {place: some for place in Place if (some := [each.latency_ms for each in asked if each.place is place])}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    return {name: round(float(np.quantile(values, at)), 3) for name, at in _QUANTILES.items()}


def _raw(stream: str, each: Asked) -> dict[str, object]:
    return {"kind": stream, "image": each.image, "place": each.place.name.lower(), "ms": round(each.latency_ms, 3)}


if __name__ == "__main__":
    sys.exit(main())
