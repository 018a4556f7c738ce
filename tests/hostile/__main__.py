"""Sends all hostile cases to live services, one after the other and then many at once.

    python -m tests.hostile [--json FILE] [--only TEXT …] [--at-once N] [--seed N] [--verbose]

After each case an ordinary question must get the undisturbed answer. Exit code 1 on a crash, a hang (no end within a minute),
more memory than the limits explain, another status or field than expected, or a text that tells of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.harness import environment
from tests.hostile.attack import Result, attack
from tests.hostile.case import Case
from tests.hostile.corpus import corpus
from tests.hostile.deployment import IMAGE_WORKERS, deployed
from tests.hostile.memory import MemoryBound

# The services' defaults.
BOUND = MemoryBound(max_message_bytes=64 * 2**20, max_image_pixels=50_000_000, image_workers=IMAGE_WORKERS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs, prints and returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    cases = [case for case in corpus() if not options.only or any(text in case.title for text in options.only)]
    with TemporaryDirectory(prefix="hostile-") as folder:
        results = asyncio.run(run(cases, Path(folder), at_once=options.at_once, seed=options.seed))
    print(table(results))
    faults = [result for result in results if result.fault]
    for result in faults:
        print(f"FAULT {result.family}: {result.name}: {result.status} {result.field} {result.text[:200]!r}: {result.fault}")
    if options.json:
        options.json.write_text(json.dumps(report(results, at_once=options.at_once, seed=options.seed), indent=1) + "\n")
    return 1 if faults else 0


async def run(cases: Sequence[Case], folder: Path, *, at_once: int, seed: int) -> list[Result]:
    """Every case alone, then, with `at_once`, all of them in an order drawn from `seed`."""
    async with deployed(folder) as deployment, attack(deployment, BOUND) as one:
        results = [result async for result in one.one_by_one(cases)]
        if at_once > 1 and len(results) == len(cases):
            shuffled = random.Random(seed).sample(list(cases), len(cases))
            results += await one.together(shuffled, at_once)
    return results


def report(results: Sequence[Result], *, at_once: int, seed: int) -> dict[str, Any]:
    """The run as JSON: families, what was at fault, and each case but for the text of its error.

    `requests` counts both rounds. Memory is how far the highest resident memory rose: in MiB, of a case sent alone; the family
    of all at once has that of the whole second round.
    """
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "at_once": at_once,
        "seed": seed,
        "bounds_mib": {name: most // 2**20 for name, most in BOUND.of_services(1).items()}
        | {f"{name}_at_once": most // 2**20 for name, most in BOUND.of_services(at_once).items()},
        "families": families(results),
        "faults": [asdict(result) for result in results if result.fault],
        "cases": [{name: value for name, value in asdict(result).items() if name != "text"} for result in results],
    }


def families(results: Iterable[Result]) -> list[dict[str, Any]]:
    """What came of each family."""
    by_family: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_family[result.family].append(result)
    return [
        {
            "family": family,
            "cases": len({one.name for one in found}),
            "requests": len(found),
            "faults": sum(bool(one.fault) for one in found),
            "statuses": dict(Counter(one.status for one in found)),
            "worst_ms": max(one.ms for one in found),
            "encoder_mib": round(max(one.encoder_growth_bytes for one in found) / 2**20),
            "decoder_mib": round(max(one.decoder_growth_bytes for one in found) / 2**20),
            "gateway_mib": round(max(one.gateway_growth_bytes for one in found) / 2**20),
        }
        for family, found in by_family.items()
    ]


def table(results: Iterable[Result]) -> str:
    """A line for each family: cases, faults, statuses, the longest, and the most memory."""
    services = ("encoder", "decoder", "gateway")
    sizes = "".join(f"{f'{service} MiB':>12}" for service in services)
    lines = [f"{'family':<26}{'cases':>6}{'faults':>7}{'answered':>9}{'worst ms':>10}{sizes}"]
    lines += [
        f"{one['family']:<26}{one['cases']:>6}{one['faults']:>7}{one['statuses'].get('OK', 0):>9}{one['worst_ms']:>10.0f}"
        + "".join(f"{one[f'{service}_mib']:>12}" for service in services)
        for one in families(results)
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write a report here")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only cases whose family or name has one of these")
    parser.add_argument("--at-once", type=int, default=8, help="how many in the second round; 1 leaves it out")
    parser.add_argument("--verbose", action="store_true", help="tell of each case before it is sent")
    parser.add_argument("--seed", type=int, default=0, help="of the second round's order")
    return parser


if __name__ == "__main__":
    sys.exit(main())
