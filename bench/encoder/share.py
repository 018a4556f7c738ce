"""What reducing adds, part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

from bench.encoder.setup import Setup
from bench.harness import Check, Report
from bench.timing import alternating, median_ratio
from encoder_service.reduction.reduce import Scores, reduce_tiles
from encoder_service.vision import clip
from encoder_service.vision.attention import first_row_scores
from encoder_service.vision.base import PreparedImage

_LAYERS = 2  # the shallow one and the deep one
_PASS, _ROWS, _REST = "vision transformer", "score rows", "scans and merging"


def measure(setup: Setup, report: Report) -> None:
    """One batch size after the other."""
    shares = {}
    for count in setup.batches:
        times = _times(setup, report, count)
        added = [sum(some) for some in zip(times[_ROWS], times[_REST], strict=True)]
        shares[count] = median_ratio(added, times[_PASS])
    report.checks.append(Check("reduction_share", max(shares.values()), "<=", 0.05))
    report.summary["reduction_share by batch size"] = {count: round(share, 4) for count, share in shares.items()}


@torch.inference_mode()
def _times(setup: Setup, report: Report, count: int) -> dict[str, list[float]]:
    """The vision transformer's pass, the score rows in it, and what comes after the projector."""
    device = setup.model.device
    images = [replace(image, pixels=image.pixels.to(device)) for image in setup.images(count)]
    seen, watched = setup.model.look(images), _watched(setup, images)
    tokens = setup.model.project(seen.features).view(count, setup.model.grid.tokens, -1)
    scores = Scores(*(rows.view(count, -1) for rows in (seen.scores.shallow, seen.scores.deep)))
    seeds = torch.zeros(count, dtype=torch.int64)
    work: dict[str, Callable[[], Any]] = {
        _PASS: lambda: setup.model.look(images),
        _ROWS: lambda: [first_row_scores(*each) for each in watched],
        _REST: lambda: reduce_tiles(tokens, scores, setup.reduced, seeds),
    }
    sides = {name: partial(setup.timed, setup.launched(some)) for name, some in work.items()}
    return alternating(setup.rounds, sides, report, f"parts of a pass over {count}")


def _watched(setup: Setup, images: list[PreparedImage]) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """The queries, keys and scalings that the score rows are taken from."""
    seen: list[Any] = []

    def watch(*given: Any) -> torch.Tensor:
        seen.append(given)
        return first_row_scores(*given)

    with patch.object(clip, "first_row_scores", watch):
        setup.model.look(images)
    if not seen or len(seen) % _LAYERS:  # a pass may take the tiles in several goes
        raise RuntimeError(f"score rows were taken {len(seen)} times, of {_LAYERS} layers")
    return seen
