"""The made-up benchmark files of `tests/data/eval`: a few questions a task, in the forms of the releases and of LLaVA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.evaluation.catalogue import find_task
from studies.evaluation.task import Item, Scores, Sources, read_items

DATA = Path(__file__).parents[1] / "data" / "eval"


def read(
    task: str, questions: str, images: str, annotations: str | None = None, *, limit: int | None = None, **more: Any
) -> Sequence[Item[Any]]:
    """The questions of one of the files, checked as a run checks them."""
    labels = None if annotations is None else DATA / annotations
    sources = Sources(questions=DATA / questions, images=DATA / images, annotations=labels, **more)
    return read_items(find_task(task), sources, limit)


def score(task: str, items: Sequence[Item[Any]], answers: Sequence[str] | Mapping[Any, str]) -> Scores:
    """The scores of answers in the items' order, or by their ids."""
    by_id = answers if isinstance(answers, Mapping) else {item.id: text for item, text in zip(items, answers, strict=True)}
    scores = find_task(task).score(items, by_id)
    assert scores is not None
    return scores
