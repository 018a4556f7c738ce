"""Files in which answers are handed in."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vscan_client.cli.extras import needs_extra


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


def write_sheet(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """The same as a spreadsheet (.xlsx). Texts stay texts, also those that begin as a formula does; characters that a sheet
    cannot hold are left out.

    Raises:
        MissingExtra: openpyxl is not installed.
        OSError: the file cannot be written.
    """
    with needs_extra("eval", "a spreadsheet (--export FILE.xlsx)"):
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    book = Workbook(write_only=True)
    sheet = book.create_sheet()

    def cell(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        made = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("", value))
        made.data_type = "s"
        return made

    for row in (names, *rows):
        sheet.append([cell(value) for value in row])
    book.save(path)
