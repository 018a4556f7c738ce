"""A made-up profile with round figures, for tests of plans and simulations."""

from __future__ import annotations

from typing import Any

from bench.capacity.curve import Curve
from bench.capacity.demand import Demand
from bench.capacity.profile import CacheCosts, ClientCosts, DecoderCosts, EncoderCosts, KvMemory, Profile, WireCosts

PIXELS = 336 * 336


def curve(*points: tuple[float, float]) -> Curve:
    """Of (size, value)."""
    return Curve(points=points)


def profile(**changes: dict[str, Any]) -> Profile:
    """`changes` by part: `profile(encoder={"max_batch_tiles": 1})`."""
    made = Profile(
        made="2026-01-01",
        device="none",
        model="made up",
        tiles=1,
        visual_rows=24,
        kept_rows=8,
        encoder=EncoderCosts(
            pass_ms=curve((1, 40), (8, 240)),
            preprocess_ms=curve((PIXELS, 4)),
            request_ms=2,
            end_ms=1,
            on_core=True,
            max_batch_tiles=16,
            max_queue=64,
        ),
        decoder=DecoderCosts(
            cold_ms=curve((60, 24)),
            hot_ms=curve((60, 14)),
            step_ms=curve((1, 10), (8, 20)),
            shared_ms=4,
            request_ms=3,
            end_ms=2,
            encoded_ms=4,
            redis_ms=2,
            engine_weight=1,
            on_core=True,
            max_running=8,
            max_queue=64,
            max_step_rows=2048,
            text_rows=6,
            kv=KvMemory(
                layers=8,
                prune_layers=(4,),
                kv_heads=4,
                head_dim=32,
                hidden_size=128,
                itemsize_bytes=4,
                block_rows=16,
                cache_bytes=256 << 20,
            ),
        ),
        cache=CacheCosts(
            entry_bytes=12_500, redis_bytes=14_000, value_bytes=13_000, memory_bytes=256 << 20, get_ms=0.2, put_ms=0.3
        ),
        wire=WireCosts(
            file_bytes=curve((PIXELS, 20_000)),
            question_bytes=100,
            token_bytes=10,
            reply_bytes=12_600,
            file_ms=1,
            hot_ms=0.5,
            encoded_ms=1,
            redis_ms=1,
        ),
        client=ClientCosts(request_ms=2, token_ms=0.4, end_ms=1),
    )
    values = made.model_dump()
    for part, fields in changes.items():
        values[part] |= fields
    return Profile.model_validate(values)


def demand(**changes: Any) -> Demand:
    """Forty questions a second, of which three tenths are about new images."""
    usual: dict[str, Any] = {
        "requests_per_second": 40.0,
        "pixels": PIXELS,
        "repeat_rate": 0.7,
        "question_tokens": 8,
        "answer_tokens": 16,
        "ttl_s": 3600.0,
        "target_ms": 450.0,
    }
    return Demand(**usual | changes)
