"""`validate`: the simulation against the services."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from bench.capacity.commands.measure import LEAST_ROUNDS
from bench.capacity.commands.models import model_and_folder, model_option
from bench.capacity.profile import Profile
from bench.harness import environment


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    model_option(parser)
    parser.add_argument("--profile", type=Path, help="measured on this machine with this model; unset: it is measured first")
    parser.add_argument("--rounds", type=int, default=9, help="of measuring the profile")
    parser.add_argument("--seconds", type=float, default=60.0, help="that each load lasts: a 95th percentile of fewer answers is chance")
    parser.add_argument("--only", action="append", help="a scenario alone, by its name; may be given again")
    parser.add_argument("--json", type=Path, help="write the report here")


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
    began = time.perf_counter()
    with model_and_folder(arguments.model) as (model, folder):
        if arguments.profile:
            profile = Profile.load(arguments.profile)
        else:
            profile = measured_profile(folder, model, arguments.model, arguments.rounds)
        records = validate(profile, model, folder, scenarios, arguments.seconds)
    report = {
        "made": time.strftime("%Y-%m-%d"),
        "environment": environment(),
        "took_s": round(time.perf_counter() - began),
        "profile": profile.model_dump(),
        "scenarios": records,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{apart(records)} quantities are more than 15 % apart")
    return 1 if apart(records) else 0
