"""The messages of a request as the SDK's: texts, and images and videos that come as data URLs."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from gateway_service.json_fields import Fields, check_text
from vscan.errors import InvalidArgument
from vscan.specs import FrameCount, FrameRate, FrameSampling
from vscan_client import Image, Message, Role, Text, Video

_ROLES = {"system": Role.SYSTEM, "developer": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT}
_DATA_URL = re.compile(r"data:(image|video)/[\w.+-]+;base64,", re.ASCII | re.IGNORECASE)
# What an earlier answer of a model carries along and what has no effect here.
_CARRIED = {"name", "refusal", "annotations", "reasoning_content"}
_EMPTY_ONLY = {"tool_calls", "function_call", "audio"}


def read_messages(body: Fields, sampling: FrameSampling | None) -> tuple[Message, ...]:
    """All of them; frames of videos are taken by `sampling`. Raises InvalidArgument."""
    messages = tuple(_message(each, sampling) for each in body.objects("messages"))
    if not messages:
        body.refuse("messages", "empty", "at least one message")
    return messages


def _message(fields: Fields, sampling: FrameSampling | None) -> Message:
    fields.only({"role", "content"} | _CARRIED | _EMPTY_ONLY)
    role = _ROLES[fields.choice("role", *_ROLES)]
    for name in _EMPTY_ONLY:
        if fields.raw(name):
            fields.refuse(name, "is not supported")
    content = fields.raw("content")
    if isinstance(content, str):
        check_text(content, fields.below("content"))
        return Message(role, (Text(content),))
    if not isinstance(content, list) or not content:
        fields.refuse("content", "a text or a list of parts is needed")
    return Message(role, tuple(_parts(fields, role, sampling)))


def _parts(fields: Fields, role: Role, sampling: FrameSampling | None) -> Iterator[Text | Image | Video]:
    for part in fields.objects("content"):
        kind = part.choice("type", "text", *(("image_url", "video_url") if role is Role.USER else ()))
        part.only({"type", kind})
        if kind == "text":
            yield Text(part.text("text"))
            continue
        source = part.object(kind)
        source.only({"url", "detail"})
        data = _data_of(source, kind.removesuffix("_url"))
        yield Image.from_bytes(data) if kind == "image_url" else _video(data, sampling)


def _video(data: bytes, sampling: FrameSampling | None) -> Video:
    frames = sampling.count if isinstance(sampling, FrameCount) else None
    rate = sampling.per_second if isinstance(sampling, FrameRate) else None
    return Video.from_bytes(data, frames=frames, frames_per_second=rate)


def _data_of(source: Fields, kind: str) -> bytes:
    """What a data URL holds. What it says of the format is not believed: the encoder looks at the bytes."""
    url = source.text("url")
    head = _DATA_URL.match(url)
    if head is None or head[1].lower() != kind:
        if re.match(r"\s*(https?|ftp|file):", url, re.IGNORECASE):
            source.refuse("url", "is not fetched: servers never fetch URLs", f"data:{kind}/...;base64,")
        source.refuse("url", "is no data URL", f"data:{kind}/...;base64,")
    try:
        data = binascii.a2b_base64(url[head.end() :].encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise InvalidArgument(source.below("url"), "is not base64") from None
    return data or source.refuse("url", "is empty")
