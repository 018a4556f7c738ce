"""The whole training: `python -m embedded_model.train --out DIR`.

Goes on where it was stopped. On a CPU, stages 1 and 2 run side by side and stages 4 and 5 on two
ranks, each process with one thread; on a GPU one stage follows the other. Where there is a C++
compiler, layers are compiled, which takes about 0.6 of the time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from embedded_model.arguments import above_zero
from embedded_model.evaluate.evaluation import evaluate
from embedded_model.evaluate.exam import QUESTIONS
from embedded_model.evaluate.report import to_markdown
from embedded_model.export import export_checkpoint
from embedded_model.model import build_model
from embedded_model.train.bridge import whole_model
from embedded_model.train.card import write_card
from embedded_model.train.heads import Heads
from embedded_model.train.plan import PLANS, scaled
from embedded_model.train.state import load_module, saved_progress
from studies.inputs import draw_scenes
from studies.loading import open_model
from studies.vision.cls_attention import shares_table

ATTENTION_PICTURES = 300
TOGETHER = (("vision", "language"), ("bridge",), ("joint",), ("dropout",))
LAST = "dropout"
POLL_S = 0.2
PAIRED = frozenset({"joint", "dropout"})  # stages that share their steps between two ranks


@dataclass(frozen=True, slots=True)
class Journey:
    """What the command line asked for."""

    out: Path
    seed: int
    device: str
    compiled: bool
    scale: float  # of the planned steps and of the evaluation

    def commands(self, name: str) -> list[list[str]]:
        """The processes of one stage."""
        ranks = 2 if name in PAIRED and self.device == "cpu" else 1
        base = [sys.executable, "-m", "embedded_model.train.stage", name, "--out", str(self.out)]
        base += ["--seed", str(self.seed), "--device", self.device, "--ranks", str(ranks)]
        base += ["--scale", str(self.scale), *(["--compiled"] if self.compiled else [])]
        return [[*base, "--rank", str(rank)] for rank in range(ranks)]

    def done(self, name: str) -> bool:
        """Whether all steps of a stage are saved."""
        return saved_progress(self.out / name).step >= scaled(PLANS[name].steps, self.scale)


def main() -> None:
    """Runs every stage that is not done, then writes and evaluates the checkpoint."""
    journey = _parse()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    _begin_or_go_on(journey)
    for names in TOGETHER:
        _run_together(journey, names)
    write_checkpoint(journey, journey.out / "checkpoint")


def _parse() -> Journey:
    parser = argparse.ArgumentParser(
        prog="python -m embedded_model.train",
        description="Trains the embedded model, in a clone's root; goes on where it was ended.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the state of the stages, and for the checkpoint")
    parser.add_argument("--seed", type=int, default=0, help="of scenes, questions and weights (default %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=shutil.which("g++") is not None,
        help="compile layers (default: where g++ is)",
    )
    parser.add_argument(
        "--scale",
        type=above_zero,
        default=1.0,
        help="for trying it out: do so many times the steps, and as much of the evaluation",
    )
    asked = parser.parse_args()
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = found if asked.device == "auto" else asked.device
    return Journey(asked.out, asked.seed, device, asked.compiled, asked.scale)


def _begin_or_go_on(journey: Journey) -> None:
    """What was begun with one seed or scale is not gone on with under another."""
    journey.out.mkdir(parents=True, exist_ok=True)
    note, wanted = journey.out / "run.json", {"seed": journey.seed, "scale": journey.scale}
    begun = json.loads(note.read_text()) if note.exists() else wanted
    if begun != wanted:
        raise SystemExit(f"--out: {journey.out} was begun with --seed {begun['seed']} --scale {begun['scale']}")
    note.write_text(json.dumps(wanted))


def _run_together(journey: Journey, names: tuple[str, ...]) -> None:
    """Runs stages side by side (one after the other on a GPU) and waits for them; one that fails ends the others."""
    waiting = [name for name in names if not journey.done(name)]
    groups = [waiting] if journey.device == "cpu" else [[name] for name in waiting]
    for group in groups:
        for name in group:
            (journey.out / f"{name}.meeting").unlink(missing_ok=True)
        running = [subprocess.Popen(c) for name in group for c in journey.commands(name)]
        try:
            while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
                time.sleep(POLL_S)
        finally:
            for process in running:
                process.terminate()  # nothing to those that have ended
                process.wait()
        if any(process.returncode for process in running):
            raise SystemExit(f"stage failed: {', '.join(group)}")


def write_checkpoint(journey: Journey, directory: Path) -> None:
    """Exports what the last stage saved, measures the exported files through the services, writes the model card."""
    model = build_model()
    whole: nn.Module = whole_model(model, Heads())
    load_module(journey.out / LAST, whole)
    export_checkpoint(model, directory)
    evaluation = evaluate(directory, scaled(QUESTIONS, journey.scale), journey.seed, Console(stderr=True))
    evaluation.write(journey.out / "evaluation.json")
    print(to_markdown(evaluation.lines, evaluation.constant))
    pictures = scaled(ATTENTION_PICTURES, journey.scale)
    attention = shares_table(open_model(directory, device="cpu"), draw_scenes(pictures, journey.seed))
    spent = {name: saved_progress(journey.out / name).seconds for name in PLANS}
    write_card(directory, evaluation, attention, pictures, spent, journey.scale)


if __name__ == "__main__":
    main()
