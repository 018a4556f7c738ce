"""The table of questions and answers."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from demo.asking import Asked


def answer_table(rows: Sequence[Asked]) -> Table:
    """One line per question, in the order asked."""
    table = Table(title="Questions about the album", header_style="bold")
    table.add_column("picture", no_wrap=True)
    table.add_column("question", overflow="fold")
    table.add_column("answer")
    table.add_column("truth")
    table.add_column("visual tokens", no_wrap=True, justify="right")
    table.add_column("found in", no_wrap=True)
    table.add_column("TTFT ms", justify="right")
    for row in rows:
        table.add_row(
            row.picture.name,
            row.question.text,
            f"[{'green' if row.correct else 'red'}]{row.answer.text.strip()}[/]",
            row.question.answer,
            f"{row.image.tokens_before} → {row.image.tokens_after} → {row.after_pruning}",
            str(row.image.place),
            f"{row.time_to_first_token_ms:.1f}",
        )
    return table
