"""Renders a checkpoint's own chat template and knows, character by character, who wrote what.

The template is rendered twice: with an unguessable mark in place of each text part, and with the texts themselves. The marks
say where the template put each text; the second rendering says what it made of it (templates like to trim).

    template     USER: {image}{text} ASSISTANT:
    with marks   USER: <image> 7f3a-0- ASSISTANT:
    with texts   USER: <image> is it <image>? ASSISTANT:
    stretches    [template "USER: <image> "] [part 0 "is it <image>?"] [template " ASSISTANT:"]

The first `<image>` is an image, the second is a word of the user's.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from decoder_service.chat import Chat, MediaPart, Role, TextPart, Turn
from vscan.errors import CheckpointError, InvalidArgument

# What templates do to texts: nothing, or cut white space at an end.
_TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.rstrip, str.lstrip)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Characters with one author: text part number `part`, or the template (None)."""

    text: str
    part: int | None = None


class ChatTemplate:
    """A chat template, compiled by transformers in its sandbox.

    Args:
        tokenizer: gives the template its special tokens.
        source: the Jinja source.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        self._tokenizer = tokenizer
        self._source = source
        self._flat: set[Role] = set()  # roles whose content the template wants as a string, not as a list of parts
        self._flat.update(role for role in (Role.USER, Role.SYSTEM, Role.ASSISTANT) if self._wants_string(role))
        self._placeless = {role for role in (Role.SYSTEM, Role.ASSISTANT) if not self._has_place_for(role)}

    @classmethod
    def open(cls, directory: Path, tokenizer: PreTrainedTokenizerBase) -> ChatTemplate | None:
        """The template of a checkpoint directory: the processor's first, then the tokenizer's; None if it has none.

        Raises:
            CheckpointError: a template file cannot be read.
        """
        source = _template_source(directory, tokenizer)
        return None if source is None else cls(tokenizer, source)

    def render(self, chat: Chat) -> list[Stretch]:
        """The prompt up to where the assistant's answer begins.

        Raises:
            InvalidArgument: the template refuses the chat, has no place for a role or a text, or changes a text in a way that
                cannot be followed.
        """
        self._check_turns(chat)
        marks = _Marks(len(chat.texts()))
        marked = marks.split(self._render(chat, marks.of), chat)
        if not chat.texts():
            return marked
        texts = [part.text for part in chat.texts()]
        return _follow(marked, self._render(chat, texts.__getitem__), chat.texts())

    def _check_turns(self, chat: Chat) -> None:
        for turn in chat.turns:
            if turn.role in self._placeless:
                raise InvalidArgument(f"{turn.field}.role", f"this model's chat template has no place for {turn.role} messages")
            for part in turn.parts:
                if turn.role in self._flat and isinstance(part, MediaPart):
                    problem = f"this model's chat template takes no {part.kind}s in {turn.role} messages"
                    raise InvalidArgument(part.field, problem)

    def _render(self, chat: Chat, text_of: Callable[[int], str]) -> str:
        numbers = itertools.count()
        conversation = [{"role": turn.role.value, "content": self._content(turn, numbers, text_of)} for turn in chat.turns]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    conversation, chat_template=self._source, tokenize=False, add_generation_prompt=True
                )
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0][:200]
            raise InvalidArgument("messages", f"this model's chat template refuses them: {reason}") from error

    def _content(self, turn: Turn, numbers: Iterator[int], text_of: Callable[[int], str]) -> str | list[dict[str, str]]:
        content = [
            {"type": "text", "text": text_of(next(numbers))} if isinstance(part, TextPart) else {"type": part.kind.value}
            for part in turn.parts
        ]
        return "".join(part.get("text", "") for part in content) if turn.role in self._flat else content

    def _wants_string(self, role: Role) -> bool:
        """True where the template fails on a list of parts of `role`, or prints it as code, and does neither on a string."""
        as_parts = self._probe(*_around(role))
        self._flat.add(role)
        as_string = self._probe(*_around(role))
        self._flat.discard(role)
        return _is_broken(as_parts) and not _is_broken(as_string)

    def _has_place_for(self, role: Role) -> bool:
        """False where the template writes a message of `role` exactly as it would one of the user's."""
        as_user = self._probe(*[Role.USER] * len(_around(role)))
        return as_user is None or as_user != self._probe(*_around(role))

    def _probe(self, *roles: Role) -> str | None:
        """The rendering of a small chat; None where the template refuses it."""
        texts = [f"text{number}" for number in range(len(roles))]
        turns = (Turn("", role, (TextPart("", text),)) for role, text in zip(roles, texts, strict=True))
        try:
            return self._render(Chat(tuple(turns)), texts.__getitem__)
        except InvalidArgument:
            return None


def _around(role: Role) -> tuple[Role, ...]:
    """The shortest chat with a turn of `role`."""
    return {Role.USER: (role,), Role.SYSTEM: (role, Role.USER), Role.ASSISTANT: (Role.USER, role, Role.USER)}[role]


def _is_broken(rendered: str | None) -> bool:
    return rendered is None or "'type': 'text'" in rendered


class _Marks:
    """One unguessable word for each text part; white space and letter case cannot touch it."""

    def __init__(self, count: int) -> None:
        self._nonce = secrets.token_hex(16)
        self._count = count

    def of(self, part: int) -> str:
        return f"{self._nonce}-{part}-"

    def split(self, rendered: str, chat: Chat) -> list[Stretch]:
        """The rendering cut at the marks. Raises InvalidArgument where a text found no place."""
        # Not one pattern of the nonce: each would be compiled, and fill the cache that all patterns share.
        head, *marked = rendered.split(f"{self._nonce}-")
        pieces = [head]
        for each in marked:
            part_number, dash, text = each.partition("-")
            pieces += [part_number, text] if dash and part_number.isdecimal() else []  # a mark that was cut is none
        found = {int(number) for number in pieces[1::2]}
        for number, part in enumerate(chat.texts()):
            if number not in found:
                raise InvalidArgument(part.field, "this model's chat template has no place for it")
        return [
            Stretch(self.of(int(piece)), int(piece)) if odd else Stretch(piece)
            for index, piece in enumerate(pieces)
            if (odd := index % 2) or piece
        ]


def _follow(marked: Sequence[Stretch], rendered: str, parts: Sequence[TextPart]) -> list[Stretch]:
    """`marked` with the texts as they stand in `rendered`. Raises InvalidArgument where the two renderings part ways."""
    stretches: list[Stretch] = []
    position = 0
    for index, stretch in enumerate(marked):
        following = marked[index + 1] if index + 1 < len(marked) else Stretch("")
        tail = following.text if following.part is None else ""
        text = stretch.text if stretch.part is None else _as_written(parts[stretch.part].text, tail, rendered, position)
        if text is None or not rendered.startswith(text, position):
            raise InvalidArgument(_nearest(marked[: index + 1], parts), "this model's chat template changes this text")
        stretches.append(Stretch(text, stretch.part))
        position += len(text)
    if position != len(rendered):
        raise InvalidArgument(_nearest(marked, parts), "this model's chat template changes this text")
    return stretches


def _as_written(text: str, tail: str, rendered: str, position: int) -> str | None:
    return next((form for trim in _TRIMS if rendered.startswith((form := trim(text)) + tail, position)), None)


def _nearest(marked: Sequence[Stretch], parts: Sequence[TextPart]) -> str:
    return next((parts[s.part].field for s in reversed(marked) if s.part is not None), parts[0].field)


def _template_source(directory: Path, tokenizer: PreTrainedTokenizerBase) -> str | None:
    try:
        if (directory / "chat_template.jinja").is_file():
            return (directory / "chat_template.jinja").read_text()
        for name in ("chat_template.json", "processor_config.json"):
            if (directory / name).is_file() and (source := json.loads((directory / name).read_text()).get("chat_template")):
                return _default_of(source)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{directory}: its chat template cannot be read: {error}") from error
    return _default_of(tokenizer.chat_template)


def _default_of(source: Any) -> str | None:
    """Of several named templates the default one."""
    if isinstance(source, list):
        source = {entry["name"]: entry["template"] for entry in source}
    return source.get("default") if isinstance(source, dict) else source
