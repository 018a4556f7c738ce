"""Whole requests: eight at once, and one after the other."""

from __future__ import annotations

from collections.abc import Callable

from bench.decoder.setup import REDUCED, Setup
from bench.decoder.timing import serve
from bench.harness import Check, Report
from bench.timing import alternate
from decoder_service.engine import Engine

_MOST_ROUNDS = 5  # they take long


def measure(setup: Setup, report: Report) -> None:
    """Answers of 256 tokens, and of 64."""
    image = setup.image(REDUCED)

    def serving(engine: Engine, new: int) -> Callable[[], float]:
        return lambda: serve(engine, [setup.question(image, setup.pruned, new=new) for _ in range(8)])

    for new in (256, 64):
        sides = {"one by one": serving(setup.engine(max_running=1), new), "together": serving(setup.engine(), new)}
        times = alternate(min(setup.rounds, _MOST_ROUNDS), sides, report, f"8 requests of {new} tokens", warm=False)
        speedup = times["one by one"] / times["together"]
        if new == 256:
            report.checks.append(Check("request_batch8_speedup", speedup, ">=", 2.5))
        else:
            report.summary[f"request_batch8_speedup_{new}_tokens"] = speedup
