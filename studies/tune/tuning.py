"""`vscan tune` from beginning to end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vscan
from embedded_model import checkpoint_dir
from studies.tune.asking import Asker
from studies.tune.choice import Choice, choose
from studies.tune.cost import LanguageShape
from studies.tune.deployed import Deployed, Settings
from studies.tune.figures import CSV_NAME, Comparison, Figures, build_figures, write_csv
from studies.tune.grid import Known, Wanted, build_points, filled
from studies.tune.journal import Journal
from studies.tune.plot import NAME as PLOT_NAME
from studies.tune.plot import write_plot
from studies.tune.point import Point
from studies.tune.questions import Question, digest_of
from studies.tune.report import comments, report
from studies.tune.run import Run
from studies.tune.settings_text import NAME as SETTINGS_NAME
from studies.tune.settings_text import settings_text
from vscan_client.cli.outputs import check_folder

EMBEDDED = "the embedded model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to do.

    Attributes:
        model: checkpoint directory; None: the embedded model.
        questions: at least one.
        data: where they come from, for people.
        settings: of the services for the whole run, by service and name.
        out: folder; made if it is not there.
        resume: go on with what it has.
        tolerance: a share of the questions.
        command: as it was typed, for the settings file.
    """

    model: Path | None
    questions: Sequence[Question]
    data: str
    wanted: Wanted
    settings: Settings
    out: Path
    resume: bool
    tolerance: float
    concurrency: int
    max_new_tokens: int
    command: str

    @property
    def model_name(self) -> str:
        """For people."""
        return EMBEDDED if self.model is None else str(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it."""

    figures: Sequence[Figures]
    choice: Choice


def tune(task: Task, say: Callable[[str], None] = print) -> Result:
    """Measures what is not measured yet, chooses, and writes `points.csv`, `tune.png`, `settings.toml` beside `points.jsonl`.

    Raises:
        VScanError: the services do not start, a question failed, or `out` is of another run. What was measured is kept.
    """
    check_folder("--out", task.out, (CSV_NAME, PLOT_NAME, SETTINGS_NAME))
    shape = LanguageShape.of_checkpoint(task.model or checkpoint_dir())
    with Journal(task.out, _identity(task), resume=task.resume) as journal:
        known = journal.known(task.wanted.first_settings)
        if known is None or not all(map(journal.get, _grid(task.wanted, known))):
            with Deployed(task.model, task.settings, task.wanted.first_settings) as deployed:
                known = deployed.known
                journal.add_known(task.wanted.first_settings, known)
                grid = _grid(task.wanted, known)
                Run(deployed, journal, _asker(task, grid[0], shape), say).measure(grid)
        else:
            say(f"all {len(_grid(task.wanted, known))} points were measured before")
        measured = [found for point in _grid(task.wanted, known) if (found := journal.get(point)) is not None]
    comparison = Comparison(task.questions)
    figures = build_figures(measured, comparison)
    choice = choose(figures, lambda one, other: comparison.difference(one.measured, other.measured), task.tolerance)
    result = Result(figures=figures, choice=choice)
    for line in report(figures, choice, tolerance=task.tolerance):
        say(line)
    _write(task, result, say)
    return result


def _grid(wanted: Wanted, known: Known) -> list[Point]:
    return build_points(filled(wanted, known), known)


def _asker(task: Task, baseline: Point, shape: LanguageShape) -> Asker:
    return Asker(
        questions=task.questions,
        baseline=baseline,
        shape=shape,
        max_new_tokens=task.max_new_tokens,
        concurrency=task.concurrency,
        advance=lambda: None,
    )


def _identity(task: Task) -> dict[str, Any]:
    """What points of one file have in common, by the names that errors use."""
    return {
        "model": _model_digest(task.model or checkpoint_dir()),
        "questions": digest_of(task.questions),
        "settings": {service: dict(settings) for service, settings in task.settings.items()},
        "max_new_tokens": task.max_new_tokens,
        "version": vscan.__version__,
        "environment": _environment_digest(),
    }


def _environment_digest() -> str:
    """One name for the services' settings that the environment has, which may hold secrets."""
    told = sorted(item for item in os.environ.items() if item[0].upper().startswith(("VSCAN_ENCODER_", "VSCAN_DECODER_")))
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _model_digest(directory: Path) -> str:
    """SHA-256 over a checkpoint's configurations and weights, in hexadecimal; some seconds for each 10 GB."""
    whole = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.suffix in (".json", ".safetensors", ".jinja")):
        with path.open("rb") as file:
            whole.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()} ".encode())
    return whole.hexdigest()


def _write(task: Task, result: Result, say: Callable[[str], None]) -> None:
    choice, chosen = result.choice, result.choice.chosen.figures
    write_csv(result.figures, choice.front, chosen, task.out / CSV_NAME)
    title = f"vscan tune: {task.model_name}, {len(task.questions)} questions"
    write_plot(result.figures, choice, task.out / PLOT_NAME, title)
    head = comments(chosen, choice, model=task.model_name, data=task.data, command=task.command, tolerance=task.tolerance)
    (task.out / SETTINGS_NAME).write_text(settings_text(chosen.point, head), encoding="utf-8")
    for name in (CSV_NAME, PLOT_NAME, SETTINGS_NAME):
        say(f"wrote {task.out / name}")
