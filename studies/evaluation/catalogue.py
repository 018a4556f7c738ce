"""Every benchmark by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from studies.evaluation.task import Task
from studies.evaluation.tasks.gqa import Gqa
from vscan.errors import InvalidArgument

TASKS: Mapping[str, Task[Any]] = {
    task.name: task
    for task in (
        Gqa(),
    )
}  # fmt: skip


def find_task(name: str) -> Task[Any]:
    """The task of that name. Raises InvalidArgument that names the nearest ones."""
    if name not in TASKS:
        near = get_close_matches(name, TASKS)
        raise InvalidArgument("task", f"{name!r} is none" + (f"; {' or '.join(near)}?" if near else ""), limit=", ".join(TASKS))
    return TASKS[name]


def listing() -> Iterator[str]:
    """Lines for `vscan eval --list`."""
    for task in TASKS.values():
        yield f"{task.name}  {task.title}"
        yield from (f"    {form}" for form in task.forms)
        if task.export_form:
            yield f"    --export: {task.export_form}"
