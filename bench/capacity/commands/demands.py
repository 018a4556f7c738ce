"""The options that say what is asked for, of `plan` and `simulate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.capacity.demand import Demand
from bench.capacity.profile import Profile


def demand_options(parser: argparse.ArgumentParser) -> None:
    """`--profile`, and the load."""
    parser.add_argument("--profile", type=Path, required=True, help="made by `measure`, or kept in bench/results")
    parser.add_argument(
        "--assume", action="append", default=[], help="NAME=VALUE of a figure that was not measured, as decoder.end_ms=2"
    )
    parser.add_argument("--requests-per-second", type=float, required=True)
    parser.add_argument("--image", default="336x336", help="width and height of an image, in pixels")
    parser.add_argument("--images-per-request", type=int, default=1)
    parser.add_argument(
        "--repeat-rate", type=float, default=0.0, help="of the images, how many were seen within the time to live"
    )
    parser.add_argument("--distinct-images", type=float, help="seen within the time to live; unset: as many as are new in it")
    parser.add_argument(
        "--repeated-images", type=float, help="that repeated questions are about, all alike; unset: all distinct ones"
    )
    parser.add_argument("--question-tokens", type=int, default=16)
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--ttl", type=float, default=86_400.0, help="of cache entries, in seconds")
    parser.add_argument("--target-ttft-p95-ms", type=float, default=1000.0, help="for the 95th percentile of the first token")
    parser.add_argument("--utilisation", type=float, default=0.75, help="the largest of a replica")
    parser.add_argument("--imbalance", type=float, default=1.25, help="load of the busiest decoder over the average")
    parser.add_argument("--spare", type=int, default=1, help="replicas of each kind that may be away")
    parser.add_argument("--file-bytes", type=float, help="of an image; unset: as the profile has it")
    parser.add_argument("--kv-bytes", type=int, help="of a decoder's KV cache; unset: as the profile has it")


def demand_of(arguments: argparse.Namespace) -> tuple[Profile, Demand]:
    """Raises ValueError, naming the option."""
    return Profile.load(arguments.profile).assuming(arguments.assume), Demand(
        requests_per_second=arguments.requests_per_second,
        pixels=pixels_of(arguments.image),
        images=arguments.images_per_request,
        repeat_rate=arguments.repeat_rate,
        distinct_images=arguments.distinct_images,
        repeated_images=arguments.repeated_images,
        question_tokens=arguments.question_tokens,
        answer_tokens=arguments.answer_tokens,
        ttl_s=arguments.ttl,
        target_ms=arguments.target_ttft_p95_ms,
        utilisation=arguments.utilisation,
        imbalance=arguments.imbalance,
        spare=arguments.spare,
        file_bytes=arguments.file_bytes,
        kv_bytes=arguments.kv_bytes,
    )


def pixels_of(text: str) -> int:
    """Of "336x336". Raises ValueError."""
    width, found, height = text.partition("x")
    if not (found and width.isdecimal() and height.isdecimal() and int(width) * int(height)):
        raise ValueError(f"--image: WIDTHxHEIGHT in pixels, as 336x336, not {text}")
    return int(width) * int(height)
