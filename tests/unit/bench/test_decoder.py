"""The decoder's benchmark runs to its end: every part, with a model that is too small to say anything."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import replace

import pytest

from bench.decoder import setup as bench_setup
from bench.decoder.__main__ import PARTS
from bench.decoder.setup import Setup, Shape
from bench.harness import Report

CHECKS = {
    "linears": [],
    "prefill": ["prefill_speedup", "unreduced_vs_transformers", "repeated_prefill_speedup"],
    "memory": ["kv_bytes_share"],
    "decode": ["decode_batch8_speedup"],
    "requests": ["request_batch8_speedup"],
    "overhead": ["step_overhead_ms"],
}


@pytest.fixture(scope="module")
def setup() -> Setup:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(bench_setup.SHAPES, "tiny", Shape(layers=2, hidden=32, mlp=48, heads=4, cache_rows=65_536))
        made = Setup.make(Namespace(shape="tiny", dtype="float32", device="cpu", rounds=1))
    return replace(made, rounds=1)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_measures_what_it_is_for(setup: Setup, part: str) -> None:
    report = Report()
    PARTS[part](setup, report)
    assert [check.name for check in report.checks] == CHECKS[part]
    assert all(math.isfinite(check.value) and check.value > 0 for check in report.checks)
    assert report.raw or part == "memory"


def test_memory_is_counted_alike_at_every_size(setup: Setup) -> None:
    """Two layers, one of them pruned: rows, blocks and pages are those of the real proportions."""
    report = Report()
    PARTS["memory"](setup, report)
    [share] = report.checks
    blocks, kept_blocks, unreduced_blocks = 34, 14, 184  # of 541, 221 and 2,940 rows
    places = math.ceil(blocks / 2)  # a hidden state of 32 is 4 strips of 8, a page of one layer has 8
    assert share.value == pytest.approx((blocks + kept_blocks + places) / (2 * unreduced_blocks))
