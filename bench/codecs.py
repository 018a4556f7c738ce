"""What the encodings of cache entries save and cost: `python -m bench.codecs --json FILE`.

Entries of the embedded model's album pictures (trained features), as its encoder makes them by default, in float32 and rounded
to bfloat16: size, time to write and to read, and how far the tokens that come back are from those that went in; times also of
noise of 96 x 4096. Then the album's questions, answered through the services with full and with float8 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch

from bench.harness import Report, run
from embedded_model import checkpoint_dir
from embedded_model.album import Picture, draw_album
from tests.support.encoder import running_encoder
from tests.support.visual_values import make_tokens
from vscan.cache.body import BodyCodec, read_body
from vscan.tensors import DTYPE_NAMES
from vscan.visual_tokens import VisualTokens
from vscan_client import Client
from vscan_client.cli.local_stack import ANY_PORT, LocalStack

T = TypeVar("T")
_LARGE = 16  # entries
CODECS = {
    "none": BodyCodec(),
    "zstd, level 3": BodyCodec(zstd_level=3),
    "zstd, level 19": BodyCodec(zstd_level=19),
    "float8": BodyCodec(float8=True),
    "float8, zstd 3": BodyCodec(zstd_level=3, float8=True),
}


def main() -> int:
    """Runs the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.codecs", description=__doc__)
    parser.add_argument("--pictures", type=int, default=48, help="pictures of the album, four questions each")
    parser.add_argument("--seed", type=int, default=0, help="of the album")
    return run("bench.codecs", _measure, parser)


def _measure(arguments: argparse.Namespace) -> Report:
    album = draw_album(arguments.seed, pictures=arguments.pictures)
    values = asyncio.run(_encoded(album))
    raw = [
        _measured(name, codec, [replace(value, tokens=value.tokens.to(dtype)) for value in values])
        for dtype in (torch.float32, torch.bfloat16)
        for name, codec in CODECS.items()
    ]
    large = [make_tokens(seed, kept=96, columns=288, hidden=4096, dtype=torch.bfloat16) for seed in range(_LARGE)]
    raw += [_measured(name, codec, large) | {"kind": "large"} for name, codec in CODECS.items()]
    full, rounded = (_answers(album, tokens) for tokens in ("full", "float8"))
    truth = [question.answer for picture in album for question in picture.questions]
    return Report(
        summary={
            "pictures": len(album),
            "tokens": f"{values[0].kept_count} x {values[0].tokens.shape[1]}",
            "questions": len(truth),
            "right_full": _alike(truth, full),
            "right_float8": _alike(truth, rounded),
            "same_answer": _alike(full, rounded),
        },
        raw=raw,
    )


async def _encoded(album: Sequence[Picture]) -> list[VisualTokens]:
    async with running_encoder(model=checkpoint_dir(), shallow_layer=None, window=None) as encoder:
        return [VisualTokens.from_proto((await encoder.encode(picture.png())).visual_tokens) for picture in album]


def _measured(name: str, codec: BodyCodec, values: Sequence[VisualTokens]) -> dict[str, Any]:
    """One row: means over the values, medians of times."""
    written = [_timed(lambda value=value: codec.settle(value)) for value in values]  # type: ignore[misc]
    read = [_timed(lambda body=body: read_body(body)) for (_, body), _ in written]  # type: ignore[misc]
    plain = sum(len(value.to_bytes()) for value in values)
    errors = torch.cat([_row_errors(value.tokens, back.tokens) for value, (back, _) in zip(values, read, strict=True)])
    return {
        "kind": "codec",
        "dtype": DTYPE_NAMES[values[0].tokens.dtype],
        "codec": name,
        "bytes": round(sum(len(body.data) for (_, body), _ in written) / len(values)),
        "size_share": round(sum(len(body.data) for (_, body), _ in written) / plain, 4),
        "row_error_mean": round(float(errors.mean()), 5),
        "row_error_max": round(float(errors.max()), 5),
        "write_ms": round(statistics.median(ms for _, ms in written), 3),
        "read_ms": round(statistics.median(ms for _, ms in read), 3),
    }


def _row_errors(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of each token: length of the difference over its own length."""
    one, other = one.float(), other.float()
    errors: torch.Tensor = (one - other).norm(dim=1) / one.norm(dim=1)
    return errors


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - began) * 1000


def _answers(album: Sequence[Picture], tokens: str) -> list[str]:
    settings = {"encoder": {"cache_tokens": tokens}}
    with (
        LocalStack(decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, settings=settings) as stack,
        Client(server=stack.addresses.decoder) as client,
    ):
        return [client.ask(picture.png(), question.text).text.strip() for picture in album for question in picture.questions]


def _alike(some: Sequence[str], others: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(some, others, strict=True))


if __name__ == "__main__":
    sys.exit(main())
