"""Prefill: unreduced here and in transformers, reduced, and about an image whose rows are there."""

from __future__ import annotations

import itertools
import time

import torch

from bench.decoder.setup import REDUCED, UNPRUNED, UNREDUCED, Setup
from bench.decoder.timing import serve
from bench.harness import Check, Report
from bench.timing import alternate
from vscan.visual_tokens import VisualTokens

_keys = itertools.count()


def measure(setup: Setup, report: Report) -> None:
    """All sides alternate."""
    unreduced, reduced = setup.image(UNREDUCED), setup.image(REDUCED)
    engine = setup.engine()

    def repeated() -> float:
        """A second question about an image whose rows are there."""
        key = f"image {next(_keys)}".encode()
        serve(engine, [setup.question(reduced, setup.pruned, key=key)])
        return serve(engine, [setup.question(reduced, setup.pruned, key=key)])

    sides = {
        "transformers": lambda: transformers_prefill(setup, unreduced),
        "unreduced": lambda: serve(engine, [setup.question(unreduced, UNPRUNED)]),
        "only pruned": lambda: serve(engine, [setup.question(unreduced, setup.pruned)]),
        "only fewer tokens": lambda: serve(engine, [setup.question(reduced, UNPRUNED)]),
        "reduced": lambda: serve(engine, [setup.question(reduced, setup.pruned)]),
        "repeated": repeated,
    }
    times = alternate(setup.rounds, sides, report, "prefill")
    on_gpu = setup.language.device.type == "cuda"
    report.checks += [
        Check("prefill_speedup", times["unreduced"] / times["reduced"], ">=", 5 if on_gpu else 10),
        Check("unreduced_vs_transformers", times["unreduced"] / times["transformers"], "<=", 1.10),
        Check("repeated_prefill_speedup", times["reduced"] / times["repeated"], ">=", 2),
    ]
    if on_gpu:  # the first token of a second question against transformers' unreduced one
        report.checks.append(Check("repeated_vs_transformers", times["transformers"] / times["repeated"], ">=", 10))


@torch.inference_mode()
def transformers_prefill(setup: Setup, image: VisualTokens) -> float:
    """Its own prefill of the same rows, with a cache and the last row's logits alone."""
    rows = setup.language.prompt_rows(setup.question(image, UNPRUNED).prompt)[None]
    if rows.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    setup.reference(inputs_embeds=rows, use_cache=True, logits_to_keep=1).logits[0, -1].argmax().item()
    return time.perf_counter() - start
