"""Which series and labels an expression of Prometheus asks for. Reads names; whether it is an expression, `promtool` says.

sum by (job) (rate(a_total{code=~"5.."}[5m])) / on (job) b

selections   a_total with {code}, b with {}
labels       job: what it groups, joins or asks by beside the selections
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | \#[^\n]* )
  | (?P<string> "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*` )
  | (?P<range> \[[^\]]*\] )
  | (?P<variable> \$\{\w+(?::\w+)?\} | \$\w+ )
  | (?P<number> (?:0x[0-9a-fA-F]+ | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?) (?:ms|[smhdwy])? (?:\d+(?:ms|[smhdwy]))* )
  | (?P<name> [a-zA-Z_:][a-zA-Z0-9_:]* )
  | (?P<operator> =~ | !~ | [=!<>]= | [-+*/%^=<>(){},@] )
    """,
    re.VERBOSE,
)
_GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = _GROUPING | {"and", "or", "unless", "bool", "offset", "atan2"}
_NUMBERS = frozenset({"inf", "nan"})
_AGGREGATIONS = frozenset(
    {"sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk", "topk", "quantile"}
)


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition of a selector: `code=~"5.."`."""

    label: str
    operator: str  # =, !=, =~ or !~
    value: str  # without its quotes


@dataclass(frozen=True, slots=True)
class Selection:
    """One selector: a metric's name, "" if it has none, and the conditions on its labels."""

    metric: str
    matchers: tuple[Matcher, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        """The labels that it matches."""
        return frozenset(matcher.label for matcher in self.matchers)


@dataclass(frozen=True, slots=True)
class Names:
    """What an expression names."""

    selections: tuple[Selection, ...]
    labels: frozenset[str]

    @property
    def metrics(self) -> frozenset[str]:
        """All metrics."""
        return frozenset(selection.metric for selection in self.selections)


def names_in(expression: str) -> Names:
    """Reads an expression. Raises ValueError: there is something in it that no expression has."""
    return _Reader(list(_tokens(expression))).names()


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Pairs of kind and text."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"no token of PromQL: {text[at : at + 20]!r}")
        if match.lastgroup != "skip":
            yield str(match.lastgroup), match.group()
        at = match.end()


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._selections: list[Selection] = []
        self._labels: set[str] = set()

    def names(self) -> Names:
        while self._at < len(self._tokens):
            kind, text = self._next()
            if text == "{" and kind == "operator":
                self._select("")
            elif kind == "name":
                self._name(text)
        return Names(tuple(self._selections), frozenset(self._labels))

    def _name(self, text: str) -> None:
        following = self._peek()
        if text.lower() in _GROUPING and following == "(":
            self._labels |= set(self._list())
        elif following == "(" or text.lower() in _WORDS | _NUMBERS or self._aggregates(text, following):
            return
        elif following == "{":
            self._next()
            self._select(text)
        else:
            self._selections.append(Selection(text))

    def _aggregates(self, text: str, following: str) -> bool:
        return text.lower() in _AGGREGATIONS and following.lower() in {"by", "without"}

    def _list(self) -> Iterator[str]:
        self._next()
        while (token := self._next())[1] != ")":
            if token[0] == "name":
                yield token[1]

    def _select(self, metric: str) -> None:
        matchers = []
        while (token := self._next())[1] != "}":
            if token[0] != "name":
                continue
            matcher = Matcher(token[1], self._next()[1], self._next()[1][1:-1])
            if matcher.label == "__name__":
                metric = matcher.value
            else:
                matchers.append(matcher)
        self._selections.append(Selection(metric, tuple(matchers)))

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise ValueError("the expression ends within a list or a selector")
        self._at += 1
        return self._tokens[self._at - 1]

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""
