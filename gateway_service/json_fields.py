"""A request's JSON, read strictly: every refusal names the field by its path, `messages[1].content[0].image_url.url`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from vscan.errors import InvalidArgument

_SHOWN_CHARS = 40


def parse_object(body: bytes, *, max_values: int, max_depth: int) -> Fields:
    """The object that a body holds. Raises InvalidArgument for anything else, and for one that is nested deeper.

    `max_values` bounds what a parser makes of few bytes: commas and opening brackets are counted before, those in texts too.
    """
    if sum(map(body.count, b",[{")) > max_values:
        raise InvalidArgument("body", "too many values", limit=f"{max_values:,} commas and opening brackets")
    try:
        # UTF-8 alone, as RFC 8259 has it; of bytes the parser would guess.
        value = json.loads(
            body.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_said_once
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else _reason(error)
        raise InvalidArgument("body", reason) from None
    if not isinstance(value, dict):
        raise InvalidArgument("body", "not a JSON object")
    if _is_deeper(value, max_depth):
        raise InvalidArgument("body", "nested too deeply", limit=f"{max_depth} levels")
    return Fields(value)


class Fields:
    """The members of an object. `null` is the same as a member that is not there.

    Args:
        path: of the object; empty for the whole body.
    """

    def __init__(self, value: dict[str, Any], path: str = "") -> None:
        self._value, self.path = value, path

    def __iter__(self) -> Iterator[str]:
        return (name for name, value in self._value.items() if value is not None)

    def __contains__(self, name: str) -> bool:
        return self._value.get(name) is not None

    def below(self, name: str) -> str:
        """The path of a member."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self, name: str) -> Any:
        """As it came; None for none."""
        return self._value.get(name)

    def refuse(self, name: str, problem: str, limit: str = "") -> NoReturn:
        """Raises InvalidArgument for a member."""
        raise InvalidArgument(self.below(name), problem, limit=limit)

    def only(self, known: set[str]) -> None:
        """Raises InvalidArgument for a member of another name."""
        for name in self._value:
            if name not in known:
                self.refuse(shown(name), "no such field")

    def text(self, name: str) -> str:
        """A text that is needed. Any that can be written as UTF-8, so no half of a surrogate pair."""
        value = self.raw(name)
        if not isinstance(value, str):
            self.refuse(name, "a text is needed")
        check_text(value, self.below(name))
        return value

    def choice(self, name: str, *choices: str) -> str:
        """One of some words."""
        value = self.text(name)
        if value not in choices:
            self.refuse(name, repr(shown(value)), ", ".join(choices))
        return value

    def switch(self, name: str) -> bool:
        """A yes or no; no for none."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "true or false is needed")
        return bool(value)

    def whole(self, name: str, least: int, most: int) -> int | None:
        """A whole number; None for none."""
        value = self.raw(name)
        if value is None:
            return None
        if type(value) is not int or not least <= value <= most:
            self.refuse(name, shown(json.dumps(value)), f"a whole number from {least} to {most}")
        return value

    def object(self, name: str) -> Fields:
        """An object that is needed."""
        value = self.raw(name)
        if not isinstance(value, dict):
            self.refuse(name, "an object is needed")
        return Fields(value, self.below(name))

    def objects(self, name: str) -> Iterator[Fields]:
        """Those of a list that is needed."""
        value = self.raw(name)
        if not isinstance(value, list):
            self.refuse(name, "a list is needed")
        for index, item in enumerate(value):
            if not isinstance(item, dict):
                self.refuse(f"{name}[{index}]", "an object is needed")
            yield Fields(item, f"{self.below(name)}[{index}]")


def check_text(text: str, path: str) -> None:
    """Raises InvalidArgument where a text is no Unicode: JSON can name half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(path, "has half of a surrogate pair") from None


def shortened(text: str, most: int) -> str:
    """So much of it as an error may repeat."""
    return text if len(text) <= most else text[: most - 1] + "…"


def shown(text: str, most: int = _SHOWN_CHARS) -> str:
    """What a caller sent, as an error may repeat it: little of it, in letters that do nothing to a terminal or a log."""
    return shortened(text[: most + 1].encode("unicode_escape").decode(), most)


class _NoValueError(ValueError):
    """JSON by its form, of which nobody can say what it means."""


def _reason(error: ValueError) -> str:
    return str(error) if isinstance(error, _NoValueError) else "not JSON"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _NoValueError("a number that is too large")
    return value


def _said_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """What is there twice, a proxy may have read otherwise."""
    value = dict(members)
    if len(value) != len(members):
        raise _NoValueError("an object has a member twice")
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels + 1):
        if not level:
            return False
        inside = (item.values() if isinstance(item, dict) else item for item in level)
        level = [item for items in inside for item in items if isinstance(item, dict | list)]
    return True
