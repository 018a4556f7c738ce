"""Bytes: pages that a request takes, and how many requests fit the same memory."""

from __future__ import annotations

import time

from bench.decoder.setup import KEPT, QUESTION, REDUCED, SYSTEM, UNPRUNED, UNREDUCED, Setup
from bench.harness import Check, Report
from decoder_service.request import Pruning

_ANSWER = 256


def measure(setup: Setup, report: Report) -> None:
    """Counted by the engine itself while the requests run: pages, and not only what of them is used."""
    kinds = {"unreduced": (UNREDUCED, UNPRUNED), "reduced": (REDUCED, setup.pruned)}
    taken = {name: _page_bytes(setup, count, pruning) for name, (count, pruning) in kinds.items()}
    blocks = setup.layout.blocks(SYSTEM + UNREDUCED + QUESTION)
    kv_bytes = blocks * setup.layout.block_rows * setup.shape.layers * setup.language.kv_shape.row_bytes
    report.checks.append(Check("kv_bytes_share", taken["reduced"] / kv_bytes, "<=", 0.14))
    report.summary["bytes of pages that a request takes"] = {"unreduced, keys and values alone": kv_bytes, **taken}
    pages = 12 * setup.layout.pages([SYSTEM + UNREDUCED + QUESTION + _ANSWER] * 2)
    report.summary[f"requests with answers of {_ANSWER} tokens in the memory of 12 unreduced ones"] = {
        name: pages // setup.layout.pages([SYSTEM + visual + QUESTION + _ANSWER for visual in _reached(count, pruning)])
        for name, (count, pruning) in kinds.items()
    }


def _page_bytes(setup: Setup, count: int, pruning: Pruning) -> int:
    engine = setup.engine()
    engine.add(setup.question(setup.image(count), pruning, new=2), accepted_s=time.perf_counter())
    engine.step()
    pages = engine.figures.pages
    assert pages is not None
    return pages.held * pages.page_bytes


def _reached(count: int, pruning: Pruning) -> tuple[int, int]:
    return count, KEPT if pruning.layers else count
