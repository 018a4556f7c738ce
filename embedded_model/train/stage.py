"""One stage as a process of its own: `python -m embedded_model.train.stage vision --out DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from embedded_model.train.bridge import train_bridge
from embedded_model.train.course import Place
from embedded_model.train.joint import train_joint
from embedded_model.train.language import train_language
from embedded_model.train.plan import PLANS
from embedded_model.train.vision import train_vision


def main() -> None:
    """Runs the stage that the command line names, going on from what is saved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=PLANS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--scale", type=float, default=1.0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(asked.device)
    place = Place(asked.out, asked.seed, device, asked.rank, asked.ranks, asked.compiled, asked.scale)
    run_stage(asked.name, place)


def run_stage(name: str, place: Place) -> None:
    """Runs one stage in this process."""
    if name == "vision":
        train_vision(place)
    elif name == "language":
        train_language(place)
    elif name == "bridge":
        train_bridge(place)
    else:
        train_joint(place, name)


if __name__ == "__main__":
    main()
