"""`measure`: a profile of this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.capacity.commands.models import model_and_folder, model_option

LEAST_ROUNDS = 3


def options(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    model_option(parser)
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each kind, at least 3")
    parser.add_argument("--json", type=Path, required=True, help="write the profile here")


def run(arguments: argparse.Namespace) -> int:
    """Measure a profile with the services as processes on two cores."""
    from bench.capacity.measuring.profile import measured_profile

    if arguments.rounds < LEAST_ROUNDS:
        raise ValueError(f"--rounds: at least {LEAST_ROUNDS}, not {arguments.rounds}")
    with model_and_folder(arguments.model) as (model, folder):
        profile = measured_profile(folder, model, arguments.model, arguments.rounds)
    profile.save(arguments.json)
    print(profile.model_dump_json(indent=1))
    return 0
