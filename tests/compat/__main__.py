"""Runs mixed deployments of this checkout and an earlier revision, live, and says whether all answer alike.

    python -m tests.compat --with REVISION

Each row is one deployment over one Redis: whose encoder, whose decoder, whose client. All ask the same; every row must answer
as the one that is all of this checkout. Exit code 1 if one differs or fails.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.compat.checkout import HERE, Checkout, checkout, date_of
from tests.compat.deployment import Parts, draw_questions, running
from tests.compat.replay import differences
from tests.support.redis_server import RedisServer

_SHOWN = 3


def mixes(old: Checkout) -> Iterator[Parts]:
    """This checkout alone, which the others are compared with; what an upgrade goes through; the earlier one alone."""
    yield Parts(HERE, HERE, HERE)
    yield Parts(old, HERE, HERE)
    yield Parts(HERE, old, HERE)
    yield Parts(HERE, HERE, old)
    yield Parts(old, old, HERE)
    yield Parts(old, old, old)


def ask(parts: Parts, folder: Path, redis: RedisServer) -> list[dict[str, Any]]:
    """What one deployment answers."""
    with running(parts, folder, redis=redis) as deployment:
        return deployment.ask(folder)


def compare(revision: str) -> int:
    """Prints the table; the exit code."""
    failed = 0
    with tempfile.TemporaryDirectory() as place, checkout(revision) as old, RedisServer() as redis:
        folder = Path(place)
        draw_questions(folder)
        print(f"this checkout and {old.name} of {date_of(revision)}\n\n| encoder | decoder | client | answers | result |")
        print("| --- | --- | --- | --- | --- |")
        expected: list[dict[str, Any]] = []
        for parts in mixes(old):
            begin = time.monotonic()
            try:
                found = ask(parts, folder, redis)
                expected = expected or found
                wrong = differences(expected, found)
            except RuntimeError as error:
                found, wrong = [], [str(error)]
            failed += bool(wrong)
            names = " | ".join(part.name for part in (parts.encoder, parts.decoder, parts.client))
            print(f"| {names} | {len(found)} | {_told(wrong)} |", flush=True)
            print(f"{names}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return 1 if failed or not expected else 0


def _told(wrong: list[str]) -> str:
    return "the same" if not wrong else f"{len(wrong)} differ: " + "; ".join(line.replace("\n", " ") for line in wrong[:_SHOWN])


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="tests.compat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--with", dest="revision", metavar="REVISION", required=True, help="of this repository")
    revision = parser.parse_args().revision
    try:
        return compare(revision)
    except ValueError as unknown:
        parser.error(str(unknown))


if __name__ == "__main__":
    sys.exit(main())
