"""Files in which answers are handed in."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_json(path: Path, records: Sequence[Any]) -> None:
    """A JSON list, a record a line. Raises OSError."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def write_tsv(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table with a line of names, fields between tabs, quoted where they need it. Raises OSError."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)
