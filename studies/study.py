"""What a study is: what it is called and needs, and what comes of it. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from vscan.errors import InvalidArgument

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from studies.inputs import Inputs
    from studies.loading import Model

Cell: TypeAlias = str | int | float


class Part(StrEnum):
    """The halves of a model."""

    VISION = "vision"
    LANGUAGE = "language"


@dataclass(frozen=True, slots=True)
class Option:
    """Something that one study lets its user choose: `--NAME VALUE`."""

    name: str  # as it is typed, with dashes
    form: str  # of the value, for instance ROW,COLUMN
    help: str
    parse: Callable[[str], Any]  # raises ValueError that says what is wrong
    repeated: bool = False  # whether it may be given several times: its value is then a tuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study. What it does is in a module of its own, which is imported when it runs."""

    name: str
    title: str
    summary: str  # one sentence
    parts: frozenset[Part]
    module: str  # has `run(task: Task) -> Result`
    options: tuple[Option, ...] = ()
    needs_questions: bool = False  # else images are enough
    count: int  # of questions, or else of images and videos, where nobody says: a minute's work for the embedded model

    def read_options(self, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Values by name, of those options that were given.

        Raises:
            InvalidArgument: no such option, given twice, or a value that it does not take.
        """
        known = {option.name: option for option in self.options}
        values: dict[str, Any] = {}
        for name, text in ((typed.replace("_", "-"), text) for typed, text in given):
            if name not in known:
                others = ", ".join(f"--{other}" for other in known) or "none of its own"
                raise InvalidArgument(f"--{name}", f"{self.name} has no such option", limit=others)
            option = known[name]
            if name in values and not option.repeated:
                raise InvalidArgument(f"--{name}", "given twice")
            value = _parsed(option, text)
            values[name] = (*values.get(name, ()), value) if option.repeated else value
        return values

    def run(self, task: Task) -> Result:
        """Runs it. Raises VScanError: bad input, or a checkpoint that cannot be read."""
        result: Result = import_module(self.module).run(task)
        return result


@dataclass(frozen=True, slots=True)
class Task:
    """What a study is given."""

    model: Model
    inputs: Inputs
    options: Mapping[str, Any] = field(default_factory=dict)
    advance: Callable[[], None] = lambda: None  # to be called once for each question, or image


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, with units in their names, and rows."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a study.

    Args:
        table: NAME.csv.
        more: further tables by their name: NAME-more.csv.
        draw: sizes and fills the figure that becomes NAME.png.
        findings: what the numbers say, a line each.
    """

    table: Table
    draw: Callable[[Figure], None]
    findings: tuple[str, ...]
    more: Mapping[str, Table] = field(default_factory=dict)


def _parsed(option: Option, text: str) -> Any:
    try:
        return option.parse(text)
    except ValueError as error:
        raise InvalidArgument(f"--{option.name}", f"{text!r} is not {option.form}: {error}") from error
