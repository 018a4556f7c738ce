"""One picture per image: what each scan kept, and what survived the pruning inside the language model for one question."""

from __future__ import annotations

from pathlib import Path

from demo.asking import Asked
from vscan_client.show import pictures


def write_picture(path: Path, row: Asked) -> None:
    """Draws one question, asked with `report_kept=True`, as `vscan show` would."""
    pictures({"as deployed": row.answer}, row.picture.png(), row.question.text).save(path)
