"""Questions as tasks of lmms-eval pose them, as the SDK's messages.

A task poses a question in one of two ways: as a text beside pictures and videos ("simple"), or as messages ("chat").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from studies.lmms_eval_plugin.media import video_of, visual_of
from vscan.errors import InvalidArgument
from vscan.specs import FrameSampling
from vscan_client import Image, Message, Role, Text, Video

Parts = list[Text | Image | Video]
Messages = tuple[Message, ...]
_PLACEHOLDER = re.compile(r"<(?:image|video)(?: (\d+))?>")


def from_text(text: str, visuals: Sequence[Image | Video], system_prompt: str = "") -> Messages:
    """One question of the user.

    Where the text has a placeholder for each image or video (`<image>`, `<video>`, or `<image 2>` for the second one) they
    stand there; else all stand before the text, and placeholders are left out, as lmms-eval's own models do it:

        "<image> or <image>?", [a, b]     a, " or ", b, "?"
        "Which?",              [a, b]     a, b, "Which?"
        "<image>Which?",       [a, b]     a, b, "Which?"
    """
    parts = _placed(text, visuals) or [*visuals, Text(_without_placeholders(text) if visuals else text)]
    return (*_system(system_prompt), Message(Role.USER, tuple(parts)))


def misses_placeholders(text: str, visuals: Sequence[Image | Video]) -> bool:
    """Whether a text has placeholders but not one for each: the question says something else than what it comes with."""
    return bool(visuals) and _PLACEHOLDER.search(text) is not None and not _placed(text, visuals)


def from_messages(messages: Sequence[Mapping[str, Any]], sampling: FrameSampling | None, system_prompt: str = "") -> Messages:
    """A conversation: dictionaries with `role` and `content`, which is a text or a list of parts with `type`.

    `system_prompt` takes the place of a system message, as in lmms-eval. Where a turn of the user's is images and videos before
    one text, as lmms-eval makes it of a text with placeholders, these are read as in `from_text`.

    Raises:
        InvalidArgument: a role or a part of a kind that the service does not have, with its place.
    """
    read = []
    for place, message in enumerate(messages):
        try:
            read.append(_message(message, sampling))
        except InvalidArgument as error:
            raise error.below(f"messages[{place}]") from error
    if system_prompt:
        read = [message for message in read if message.role is not Role.SYSTEM]
    return (*_system(system_prompt), *read)


def _message(message: Mapping[str, Any], sampling: FrameSampling | None) -> Message:
    role, parts = _role(message.get("role")), _parts(message.get("content"), sampling)
    *before, last = parts or [Text("")]
    visuals = [part for part in before if not isinstance(part, Text)]
    if role is Role.USER and isinstance(last, Text) and before and len(visuals) == len(before):
        return from_text(last.text, visuals)[-1]
    return Message(role, tuple(parts))


def _placed(text: str, visuals: Sequence[Image | Video]) -> Parts:
    """The parts where each visual has its one placeholder; else none."""
    found = list(_PLACEHOLDER.finditer(text))
    order = [int(each[1]) - 1 if each[1] else place for place, each in enumerate(found)]
    if not visuals or sorted(order) != list(range(len(visuals))):
        return []
    parts: Parts = []
    behind = 0
    for place, each in zip(order, found, strict=True):
        parts += [*_text(text[behind : each.start()]), visuals[place]]
        behind = each.end()
    rest = text[behind:]
    return [*parts, *_text(rest if any(isinstance(part, Text) for part in parts) else rest.lstrip())]


def _without_placeholders(text: str) -> str:
    return _PLACEHOLDER.sub("", text).strip() if _PLACEHOLDER.search(text) else text


def _text(text: str) -> Parts:
    return [Text(text)] if text.strip() else []


def _system(text: str) -> Messages:
    return (Message.system(text),) if text else ()


def _role(name: Any) -> Role:
    try:
        return Role(name)
    except ValueError:
        raise InvalidArgument("role", f"{name!r}", limit=", ".join(Role)) from None


def _parts(content: Any, sampling: FrameSampling | None) -> Parts:
    if isinstance(content, str):
        return [Text(content)]
    parts: Parts = []
    for place, part in enumerate(content or ()):
        try:
            parts.append(_part(part, sampling))
        except InvalidArgument as error:
            raise error.below(f"content[{place}]") from error
    return parts


def _part(part: Mapping[str, Any], sampling: FrameSampling | None) -> Text | Image | Video:
    kind = part.get("type")
    if kind == "text":
        return Text(str(part.get("text", "")))
    if kind not in ("image", "video"):
        raise InvalidArgument("type", f"{kind!r}", limit="text, image, video")
    if part.get("start_time") is not None or part.get("end_time") is not None:
        raise InvalidArgument("video", "a part of a video, from one time to another", limit="whole files, or frames")
    held = part.get("url", part.get(kind))
    return video_of(held, sampling) if kind == "video" else visual_of(held, sampling)
