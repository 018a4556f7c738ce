"""A result as files: NAME.csv, NAME-MORE.csv for each further table, NAME.png."""

from __future__ import annotations

import csv
from pathlib import Path

from studies.study import Result, Table
from vscan.errors import InvalidArgument

_DOTS_PER_INCH = 150
_DIGITS = 6


def write_result(result: Result, name: str, folder: Path) -> list[Path]:
    """Writes the files, and says which. Raises InvalidArgument where that cannot be done."""
    tables = {name: result.table} | {f"{name}-{more}": table for more, table in result.more.items()}
    picture = folder / f"{name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [_write_table(table, folder / f"{file}.csv") for file, table in tables.items()]
        _draw(result, picture)
    except OSError as error:
        raise InvalidArgument("--out", f"{error.filename or folder}: {error.strerror}") from error
    return [picture, *written]


def _write_table(table: Table, path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([_short(cell) if isinstance(cell, float) else cell for cell in row] for row in table.rows)
    return path


def _draw(result: Result, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    result.draw(figure)
    figure.savefig(path, dpi=_DOTS_PER_INCH, pil_kwargs={"optimize": True})


def _short(number: float) -> str:
    return f"{number:.{_DIGITS}g}"
