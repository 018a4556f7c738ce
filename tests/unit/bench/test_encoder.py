"""The encoder's benchmark runs to its end: every part, with a model that is too small to say anything."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.encoder.__main__ import PARTS
from bench.encoder.setup import Setup
from bench.harness import Report
from bench.random_clip import ClipShape
from studies.kept.encoder import plot

CHECKS = {
    "passes": ["reduced_vs_plain_b1", "reduced_vs_plain_b2"],
    "share": ["reduction_share"],
    "grpc": ["grpc_overhead_ms"],
}
TINY = ClipShape(layers=4, hidden=32, heads=2, language_hidden=64, image_side_pixels=56, patch_side_pixels=7)


@pytest.fixture(scope="module")
def setup() -> Iterator[Setup]:
    with Setup.made(TINY, device="cpu", dtype=torch.float32, batches=(1, 2), rounds=1) as made:
        yield made


@pytest.mark.parametrize("part", PARTS)
def test_a_part_measures_what_it_is_for(setup: Setup, part: str) -> None:
    report = Report()
    PARTS[part](setup, report)
    assert [check.name for check in report.checks] == CHECKS[part]
    assert all(math.isfinite(check.value) and check.value > 0 for check in report.checks)
    assert report.raw


def test_both_sides_make_the_same_tokens(setup: Setup) -> None:
    images = setup.images(2)
    expected = setup.plain_features(images)
    for result, tokens in zip(setup.device_pass(setup.jobs(images, setup.unreduced)), expected, strict=True):
        torch.testing.assert_close(result.value.tokens, tokens, rtol=1e-4, atol=1e-5)
    [reduced, _] = setup.device_pass(setup.jobs(images, setup.reduced))
    assert reduced.value.kept_count < reduced.value.unreduced_count == 64


def test_a_plot_is_drawn_of_what_was_measured(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    speeds = {"1": 1.0, "4": 2.0}
    plot({"images a second, in process": {"reduced": speeds}}, tmp_path / "speeds.png")
    assert (tmp_path / "speeds.png").read_bytes().startswith(b"\x89PNG")
