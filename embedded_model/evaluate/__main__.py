"""`python -m embedded_model.evaluate [--json FILE] [--plot FILE] [--questions N] [--seed S]`: prints the table in Markdown.

Starts Redis, the encoder and the decoder, asks every question of the exam in every row, greedy, one question a request.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.harness import environment
from embedded_model.evaluate.asking import ask_rows
from embedded_model.evaluate.exam import draw_exam
from embedded_model.evaluate.plot import write_plot
from embedded_model.evaluate.report import build_lines, to_json, to_markdown
from embedded_model.evaluate.rows import build_rows
from embedded_model.questions import FAMILIES
from vscan.errors import VScanError

QUESTIONS = 3_500


def main() -> int:
    """Asks, computes, prints and writes; returns the exit code."""
    arguments = _parse()
    pictures = draw_exam(arguments.seed, arguments.questions)
    rows = build_rows()
    questions = len(pictures) * len(FAMILIES)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = time.monotonic()
    try:
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(f"{len(rows)} rows x {questions} questions", total=len(rows) * questions)
            outcomes = ask_rows(rows, pictures, arguments.model, lambda: progress.advance(task))
    except VScanError as error:
        console.print(f"the evaluation did not run: {error}")
        return 1
    lines = build_lines(outcomes, arguments.seed)
    print(to_markdown(lines))
    if arguments.json:
        report = {
            "environment": environment(),
            "seed": arguments.seed,
            "pictures": len(pictures),
            "questions": questions,
            "seconds": round(time.monotonic() - began),
            "families": FAMILIES,
            "rows": to_json(lines),
        }
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.plot:
        write_plot(lines, arguments.plot)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m embedded_model.evaluate", description=__doc__.splitlines()[2])
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
