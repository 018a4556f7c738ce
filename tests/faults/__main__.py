"""`python -m tests.faults --json FILE`: exit 1 if a request was lost or answered twice, or a fault never took hold."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.harness import environment
from tests.faults import cable, rolling
from tests.faults.injections import Fault, all_faults
from tests.faults.row import Row, table
from tests.faults.run import run_faults


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = _parser().parse_args(arguments)
    wanted = [fault for fault in all_faults() if _is_wanted(fault, options)]
    left_out = {f"{fault.name} {fault.component}": fault.obstacle for fault in wanted if fault.obstacle}
    if cable.obstacle() and (not options.fault or cable.NAME in options.fault):
        left_out[f"{cable.NAME} encoder"] = cable.obstacle()
    rows = asyncio.run(_run([fault for fault in wanted if not fault.obstacle], options))
    print(table(rows))
    for what, why in left_out.items():
        print(f"left out: {what}: {why}")
    problems = [problem for row in rows for problem in row.problems()] or ([] if rows else ["no fault was run"])
    print("\n".join(problems))
    if options.json is not None:
        options.json.write_text(json.dumps(_report(rows, left_out), indent=1) + "\n")
    return 1 if problems else 0


async def _run(faults: Sequence[Fault], options: argparse.Namespace) -> list[Row]:
    rows = await run_faults(faults, options.seconds, _tell)
    if not options.component and (not options.fault or rolling.NAME in options.fault):
        with tempfile.TemporaryDirectory() as folder:
            rows += await rolling.run_rolling_restart(Path(folder), _tell)
    if not cable.obstacle() and (not options.fault or cable.NAME in options.fault) and options.component in (None, ["encoder"]):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(await cable.run_pulled_cable(Path(folder), options.seconds))
            _tell(rows[-1])
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    names = sorted({rolling.NAME, cable.NAME, *(fault.name for fault in all_faults())})
    components = sorted({fault.component for fault in all_faults()})
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the report")
    parser.add_argument("--fault", action="append", choices=names, help="only this one; may be given more than once")
    parser.add_argument("--component", action="append", choices=components, help="only of this one; likewise")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each fault lasts (5)")
    return parser


def _is_wanted(fault: Fault, options: argparse.Namespace) -> bool:
    named = not options.fault or fault.name in options.fault
    return named and (not options.component or fault.component in options.component)


def _tell(row: Row) -> None:
    print(
        f"{row.fault} {row.component}: {row.took_s:.0f} s {dict(row.signs)} {list(row.messages)}", file=sys.stderr, flush=True
    )


def _report(rows: Sequence[Row], left_out: dict[str, str]) -> dict[str, Any]:
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "faults": [asdict(row) | {"took_hold": row.took_hold} for row in rows],
        "left_out": left_out,
    }


if __name__ == "__main__":
    sys.exit(main())
