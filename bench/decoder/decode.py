"""Decoding: one sequence and eight; in a cache that has been in use, too."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from bench.decoder.setup import REDUCED, Setup
from bench.harness import Check, Report
from bench.timing import alternate, timed
from decoder_service.engine import Engine

_STEPS = 24
_LONGEST = 3000  # nobody ends while they are measured


def measure(setup: Setup, report: Report) -> None:
    """Both sides go on from 570 and 250 rows; a few hundred steps later they are a little longer, both alike."""
    engines = {"1": _decoding(setup, 1, setup.engine()), "8": _decoding(setup, 8, setup.engine())}
    engines["8, used cache"] = _decoding(setup, 8, _used(setup))

    def step_s(engine: Engine) -> Callable[[], float]:
        return lambda: timed(lambda: [engine.step() for _ in range(_STEPS)]) / _STEPS

    sides = {name: step_s(engine) for name, engine in engines.items()}
    times = alternate(setup.rounds, sides, report, "decode step")
    report.checks.append(Check("decode_batch8_speedup", 8 * times["1"] / times["8"], ">=", 3))
    report.summary["runs of rows a sequence, 8 in a used cache"] = _runs(engines["8, used cache"])


def _decoding(setup: Setup, count: int, engine: Engine) -> Engine:
    image = setup.image(REDUCED)
    for _ in range(count):
        engine.add(setup.question(image, setup.pruned, new=_LONGEST), accepted_s=time.perf_counter())
    engine.step()
    return engine


def _used(setup: Setup) -> Engine:
    """Its cache is a little larger than eight sequences, and full of what 60 others of many lengths left."""
    engine = setup.engine(rows=24_576)
    draw = random.Random(0)
    for _ in range(60):
        image = setup.image(draw.randrange(40, REDUCED))
        engine.add(setup.question(image, setup.pruned, new=draw.randrange(1, 40)), accepted_s=time.perf_counter())
    while not engine.idle:
        engine.step()
    return engine


def _runs(engine: Engine) -> float:
    tables = [sequence.tables[0] for sequence in engine._scheduler._running.values()]
    return sum(len(table.runs(0, table.rows)) for table in tables) / len(tables)
