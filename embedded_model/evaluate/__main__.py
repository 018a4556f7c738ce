"""`python -m embedded_model.evaluate [--json FILE] [--plot FILE] [--questions N] [--seed S]`: prints the table in Markdown.

Starts Redis, the encoder and the decoder, and asks every question of the exam in every row: greedy, one question a request.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from embedded_model.evaluate.evaluation import evaluate
from embedded_model.evaluate.plot import write_plot
from embedded_model.evaluate.report import to_markdown
from vscan.errors import VScanError

QUESTIONS = 2_100


def main() -> int:
    """Evaluates, prints and writes; returns the exit code."""
    arguments = _parse()
    console = Console(stderr=True)
    try:
        evaluation = evaluate(arguments.model, arguments.questions, arguments.seed, console)
    except VScanError as error:
        console.print(f"the evaluation did not run: {error}")
        return 1
    print(to_markdown(evaluation.lines))
    if arguments.json:
        evaluation.write(arguments.json)
    if arguments.plot:
        write_plot(evaluation.lines, arguments.plot)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m embedded_model.evaluate",
        description="Exact match of the embedded model with and without token reduction, through the services; in Markdown.",
    )
    parser.add_argument("--json", type=Path, help="write every figure, and which answers were right, here")
    parser.add_argument("--plot", type=Path, help="draw score against average tokens here (needs matplotlib)")
    parser.add_argument(
        "--questions", type=_count, default=QUESTIONS, help="rounded up to whole pictures (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the exam and the resampling (default %(default)s)")
    parser.add_argument("--model", type=Path, help="checkpoint directory (default: the embedded model's)")
    return parser.parse_args()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


if __name__ == "__main__":
    sys.exit(main())
