"""Which picture a kept report has. Needs matplotlib."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from studies.kept import cache, encoder, evaluation
from studies.load.plots import plot as plot_load
from studies.load.report import SCHEMA
from studies.load.tables import write_csv
from vscan.errors import InvalidArgument

_FORMS = "a report of vscan bench, bench.encoder, bench.cache or embedded_model.evaluate"


def draw(file: Path, picture: Path) -> None:
    """Draws the picture that the command which wrote the report would draw; of `vscan bench` with its CSV beside it.

    Raises:
        InvalidArgument: the report cannot be read, is none that has a picture, or lacks what is drawn.
        OSError: the picture cannot be written.
    """
    report = _read(file)
    try:
        if report.get("schema") == SCHEMA:
            plot_load(report, picture)
            write_csv(report, picture.with_suffix(".csv"))
        elif "rows" in report:
            evaluation.plot(report["rows"], picture)
        else:
            _draw_benchmark(report["raw"], picture)
    except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
        raise InvalidArgument("--from", f"{file}: not a report that has a picture", limit=_FORMS) from error


def _draw_benchmark(raw: list[dict[str, Any]], picture: Path) -> None:
    if encoder.IN_PROCESS in raw[0]:
        encoder.plot(raw[0], picture)
    elif latencies := cache.latencies_by_place(raw):
        cache.plot(latencies, picture)
    else:
        raise ValueError("another benchmark's")


def _read(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidArgument("--from", f"{file} cannot be read: {error}") from error
    if not isinstance(report, dict):
        raise InvalidArgument("--from", f"{file}: not a JSON object", limit=_FORMS)
    return report
