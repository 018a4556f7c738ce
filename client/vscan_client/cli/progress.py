"""How far a batch is, for somebody at a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shown:
    """What a batch tells while it runs."""

    advance: Callable[[], None]  # one more is done
    say: Callable[[str], None]  # a line on stderr, which does not break the bar


@contextmanager
def progress(what: str, total: int) -> Iterator[Shown]:
    """A bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Shown(lambda: None, lambda line: print(line, file=sys.stderr))
        return
    with Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as shown:
        task = shown.add_task(what, total=total)
        yield Shown(
            lambda: shown.advance(task), lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
        )
