"""`from-reports`: a profile from the reports of `bench.encoder` and `bench.decoder`, as far as they have its figures."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from bench.capacity.curve import Curve
from bench.capacity.profile import CacheCosts, ClientCosts, DecoderCosts, EncoderCosts, KvMemory, Profile, WireCosts
from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings

_ENCODER, _DECODER = EncoderSettings.model_fields, DecoderSettings.model_fields
# Of both benchmarks: LLaVA-NeXT-7B's shape; 30 rows of system text and 30 of a question; 96 tokens of each of five tiles, 160
# behind layer 16; images of 336 x 336.
_TILES, _REDUCED, _KEPT, _SYSTEM, _QUESTION, _SIDE_PIXELS = 5, 480, 160, 30, 30, 336
_7B = {"layers": 32, "prune_layers": (16,), "kv_heads": 32, "head_dim": 128, "hidden_size": 4096, "itemsize_bytes": 2}


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--encoder", type=Path, required=True, help="report of bench.encoder")
    parser.add_argument("--decoder", type=Path, required=True, help="report of bench.decoder --shape 7b")
    parser.add_argument("--json", type=Path, required=True, help="write the profile here")


def run(arguments: argparse.Namespace) -> int:
    """Make a profile of two kept reports; what they do not hold stays unset."""
    encoder, decoder = json.loads(arguments.encoder.read_text()), json.loads(arguments.decoder.read_text())
    profile = profile_of(encoder, decoder)
    profile.save(arguments.json)
    print(f"not measured: {', '.join(profile.missing())}")
    return 0


def profile_of(encoder: dict[str, Any], decoder: dict[str, Any]) -> Profile:
    """Raises ValueError where the reports are of other benchmarks or devices."""
    passes, steps = _summary(encoder), _summary(decoder)
    if steps.get("shape") != "7b" or encoder["environment"]["device"] != decoder["environment"]["device"]:
        raise ValueError("--encoder, --decoder: reports of one device are needed, the decoder's with --shape 7b")
    where, prefill, rows = decoder["environment"], steps["prefill, ms"], _SYSTEM + _REDUCED + _QUESTION
    decode = [one["decode_image_ms"] for one in encoder["raw"] if one["kind"] == "through gRPC"]
    counts = sorted(int(name.split()[2].rstrip(",")) for name in passes if name.startswith("pass over"))
    return Profile(
        made="from the reports",
        device=f"{where['device']}, torch {where['torch']}, {steps['dtype']}",
        model="LLaVA-NeXT-7B's shape, random weights",
        notes=(
            "From the kept reports of bench.encoder and bench.decoder; these measure engine and device pass in process.",
            "Passes one after the other; an image is five tiles of ViT-L/14-336.",
            "A prompt's step was measured at 540 rows alone; shorter ones are taken for as long.",
        ),
        tiles=_TILES,
        visual_rows=_REDUCED,
        kept_rows=_KEPT,
        encoder=EncoderCosts(
            pass_ms=Curve(points=tuple((count, passes[f"pass over {count}, ms"]["reduced"]) for count in counts)),
            preprocess_ms=Curve(points=((_SIDE_PIXELS**2, statistics.median(decode)),)),
            request_ms=None,
            end_ms=None,
            on_core=False,
            max_batch_tiles=_ENCODER["max_batch_tiles"].default,
            max_queue=_ENCODER["max_queue"].default,
        ),
        decoder=DecoderCosts(
            cold_ms=Curve(points=((rows, prefill["reduced"]),)),
            hot_ms=Curve(points=((rows, prefill["repeated"]),)),
            step_ms=Curve(points=tuple((float(name), steps["decode step, ms"][name]) for name in ("1", "8"))),
            shared_ms=None,
            request_ms=None,
            end_ms=None,
            encoded_ms=None,
            redis_ms=None,
            engine_weight=None,
            on_core=False,
            max_running=_DECODER["max_running"].default,
            max_queue=_DECODER["max_queue"].default,
            max_step_rows=_DECODER["max_step_rows"].default,
            text_rows=_SYSTEM,
            kv=KvMemory.model_validate(_7B | {"block_rows": 16, "cache_bytes": None}),
        ),
        cache=CacheCosts(
            entry_bytes=None,
            redis_bytes=None,
            value_bytes=None,
            memory_bytes=_DECODER["cache_memory_bytes"].default,
            get_ms=None,
            put_ms=None,
        ),
        wire=WireCosts(
            file_bytes=None,
            question_bytes=None,
            token_bytes=None,
            reply_bytes=None,
            file_ms=None,
            hot_ms=None,
            encoded_ms=None,
            redis_ms=None,
        ),
        client=ClientCosts(request_ms=None, token_ms=None, end_ms=None),
    )


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    return next(one for one in report["raw"] if one["kind"] == "summary")
