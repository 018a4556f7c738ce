"""`check`: plans against simulations of them."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.capacity.checking import cases, check
from bench.capacity.profile import Profile
from bench.harness import environment


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--profile", type=Path, required=True, help="made by `measure`, or kept in bench/results")
    parser.add_argument("--only", action="append", help="a case alone, by its name; may be given again")
    parser.add_argument("--json", type=Path, help="write the report here")


def run(arguments: argparse.Namespace) -> int:
    """Simulate planned deployments; exit code 1 if one misses its goal, or has over twice the replicas that suffice."""
    profile = Profile.load(arguments.profile)
    names = [case.name for case in cases()]
    if unknown := set(arguments.only or ()) - set(names):
        raise ValueError(f"--only: {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    wanted = [case for case in cases() if not arguments.only or case.name in arguments.only]
    records = []
    for case in wanted:
        records.append(check(profile, case))
        print(_line(records[-1]), flush=True)
    if arguments.json:
        report = {"made": time.strftime("%Y-%m-%d"), "environment": environment(), "cases": records}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(record["met"] and record["not_oversized"] for record in records) else 1


def _line(record: dict[str, Any]) -> str:
    planned = record["planned"]
    least = ", ".join(f"{count} {kind} ({record[kind] / count:.2f})" for kind, count in record["least"].items())
    verdict = "ok   " if record["met"] and record["not_oversized"] else "UNMET"
    busy, bound = planned["busy"]["decoder"], record["bound"]
    return (
        f"{verdict} {record['name']:20} {record['decoders']} decoders ({bound['decoders']}), {record['encoders']} encoders "
        f"({bound['encoders']}); p95 planned {record['planned_p95_ms']:.0f}, simulated {_p95(planned)}, goal "
        f"{record['target_ms']:.0f} ms; busy {busy['mean']:.2f}, at most {busy['largest']:.2f}; "
        f"{'suffice at least' if record['by_halves'] else 'suffice'}: {least or 'not looked for'}; {record['ran_s']:.0f} s"
    )


def _p95(found: dict[str, Any]) -> str:
    lost = sum(count for end, count in found["ends"].items() if end != "answered")
    return f"{found['first_token_ms'].get('p95', float('nan')):.0f}" + (f" ({lost} not answered)" if lost else "")
