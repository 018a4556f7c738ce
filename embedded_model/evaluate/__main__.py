"""`python -m embedded_model.evaluate [--json FILE] [--plot FILE] [--questions N] [--seed S]`: prints the table in Markdown.

In a clone's root. Starts Redis, the encoder and the decoder, and asks every question of the exam in every row: greedy, one
question a request.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from rich.console import Console

from embedded_model.arguments import at_least_one
from embedded_model.evaluate.evaluation import evaluate
from embedded_model.evaluate.exam import QUESTIONS
from embedded_model.evaluate.report import to_json, to_markdown
from studies.kept.evaluation import plot
from vscan.errors import VScanError

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def main() -> int:
    """Evaluates, prints and writes; returns the exit code."""
    arguments = _parse()
    console = Console(stderr=True)
    try:
        evaluation = evaluate(arguments.model, arguments.questions, arguments.seed, console)
    except VScanError as error:
        console.print(f"the evaluation did not run: {error}")
        return 1
    print(to_markdown(evaluation.lines, evaluation.constant))
    if arguments.json:
        evaluation.write(arguments.json)
    if arguments.plot:
        plot(to_json(evaluation.lines), arguments.plot)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m embedded_model.evaluate",
        description="Exact match of the embedded model with and without token reduction, through the services; in Markdown.",
    )
    parser.add_argument("--json", type=Path, help="write every figure, and which answers were right, here")
    parser.add_argument("--plot", type=Path, help="draw score against average tokens here (needs matplotlib)")
    parser.add_argument(
        "--questions", type=at_least_one, default=QUESTIONS, help="rounded up to whole pictures (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the exam and the resampling (default %(default)s)")
    parser.add_argument(
        "--model", type=Path, help="directory of a checkpoint that embedded_model.train made (default: the packaged one)"
    )
    arguments = parser.parse_args()
    for option, path in (("--json", arguments.json), ("--plot", arguments.plot)):
        if path and not path.absolute().parent.is_dir():
            parser.error(f"{option}: {path.parent} is not a folder")
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot: pip install 'vscan-serve[plot]'")
    if arguments.plot and arguments.plot.suffix not in PLOT_SUFFIXES:
        parser.error(f"--plot: {arguments.plot.name}, limit {', '.join(PLOT_SUFFIXES)}")
    if arguments.model and not arguments.model.is_dir():
        parser.error(f"--model: {arguments.model} is not a folder")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
