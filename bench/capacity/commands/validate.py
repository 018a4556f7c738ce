"""`validate`: the simulation against the services."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bench.capacity.commands.measure import LEAST_ROUNDS
from bench.capacity.commands.models import model_and_folder, model_option
from bench.capacity.profile import Profile
from bench.harness import environment


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    model_option(parser)
    parser.add_argument("--profile", type=Path, help="measured on this machine with this model; unset: it is measured first")
    parser.add_argument("--rounds", type=int, default=9, help="of measuring the profile")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="that each load lasts: a 95th percentile of fewer answers is chance"
    )
    parser.add_argument("--only", action="append", help="a scenario alone, by its name; may be given again")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument(
        "--resume", action="store_true", help="keep of --json its profile and those loads during which the machine was steady"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare the simulation with the services under several loads; exit code 1 if a quantity is more than 15 % apart."""
    from bench.capacity.measuring.profile import measured_profile
    from bench.capacity.validation.scenarios import SCENARIOS
    from bench.capacity.validation.validate import apart, validate

    if arguments.seconds <= 0 or arguments.rounds < LEAST_ROUNDS:
        raise ValueError(f"--seconds: over 0; --rounds: at least {LEAST_ROUNDS}")
    names = [scenario.name for scenario in SCENARIOS]
    if unknown := set(arguments.only or ()) - set(names):
        raise ValueError(f"--only: {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    scenarios = [each for each in SCENARIOS if not arguments.only or each.name in arguments.only]
    began, kept = time.perf_counter(), _kept(arguments)
    with model_and_folder(arguments.model) as (model, folder):
        if kept:
            profile = Profile.model_validate(kept["profile"])
        elif arguments.profile:
            profile = Profile.load(arguments.profile)
        else:
            profile = measured_profile(folder, model, arguments.model, arguments.rounds)
        steady = {record["name"]: record for record in (kept["scenarios"] if kept else ()) if record["steady"]}
        asked = [scenario for scenario in scenarios if scenario.name not in steady]
        new = {record["name"]: record for record in validate(profile, model, folder, asked, arguments.seconds)}
    records = [(steady | new)[scenario.name] for scenario in scenarios]
    report = {
        "made": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "took_s": round(time.perf_counter() - began) + (kept["took_s"] if kept else 0),
        "profile": profile.model_dump(),
        "scenarios": records,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{apart(records)} quantities are more than 15 % apart")
    return 1 if apart(records) else 0


def _kept(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The report so far, where it is resumed."""
    if not arguments.resume:
        return None
    if arguments.profile or not arguments.json:
        raise ValueError("--resume: with --json, whose profile it is, and without --profile")
    report: dict[str, Any] = json.loads(arguments.json.read_text())
    return report
