"""Which options were typed, so that one that would change nothing can be refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import typer

from vscan.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Vain:
    """Options that say nothing in a run of this kind.

    Attributes:
        names: of the command's parameters.
        here: whether the run is of that kind.
        limit: where they do hold.
    """

    names: tuple[str, ...]
    here: bool
    limit: str


def typed(ctx: typer.Context) -> dict[str, str]:
    """Of each parameter that the command line has, not the environment or a default: what the option is called."""
    return dict(_typed(ctx))


def refuse_vain(ctx: typer.Context, rules: Iterable[Vain]) -> None:
    """Raises InvalidArgument for the first option that was typed and does not hold here."""
    given = typed(ctx)
    for rule in rules:
        for name in rule.names if rule.here else ():
            if name in given:
                raise InvalidArgument(given[name], "given, and nothing here has it", limit=f"only {rule.limit}")


def _typed(ctx: typer.Context) -> Iterator[tuple[str, str]]:
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name and source is not None and source.name == "COMMANDLINE":
            yield parameter.name, parameter.opts[0]
