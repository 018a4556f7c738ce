"""An evaluation from beginning to end, and the file that keeps it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.harness import environment
from embedded_model.evaluate.asking import ask_rows
from embedded_model.evaluate.exam import best_constant, draw_exam, share_of_no
from embedded_model.evaluate.report import Line, build_lines, to_json
from embedded_model.evaluate.rows import build_rows
from embedded_model.questions import FAMILIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was asked, where, and every row's figures."""

    environment: dict[str, Any]
    seed: int
    pictures: int
    questions: int  # in each row
    constant: dict[str, float]  # see `best_constant`
    no_share: float  # see `share_of_no`
    seconds: int
    note: str = ""  # what a reader must know of how the file came to be, by hand
    lines: list[Line]

    def write(self, path: Path) -> None:
        """As JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "lines"}
        path.write_text(json.dumps({**values, "rows": to_json(self.lines)}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """What `write` wrote."""
        values = json.loads(path.read_text())
        return cls(lines=[Line.from_json(row) for row in values.pop("rows")], **values)


def evaluate(model: Path | None, questions: int, seed: int, console: Console) -> Evaluation:
    """Draws the exam, starts the services, asks, counts. `model`: a checkpoint directory, or the embedded model.

    Shows a bar on a terminal, and elsewhere says which row is done.

    Raises:
        VScanError: the services did not start, or a question failed.
    """
    pictures, rows = draw_exam(seed, questions), build_rows()
    asked = len(pictures) * len(FAMILIES)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{len(rows)} rows of {asked} questions", total=len(rows) * asked)

        def advance() -> None:
            progress.advance(task)
            done, left = divmod(int(progress.tasks[task].completed), asked)
            if not left and not console.is_terminal:
                console.print(f"row {done} of {len(rows)} done")

        outcomes = ask_rows(rows, pictures, model, advance)
    return Evaluation(
        environment=environment(),
        seed=seed,
        pictures=len(pictures),
        questions=asked,
        constant=best_constant(pictures),
        no_share=share_of_no(pictures),
        seconds=round(time.monotonic() - began),
        lines=build_lines(outcomes, seed),
    )
