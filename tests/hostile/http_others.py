"""Hostile questions of the other families, asked over HTTP: pictures, videos, texts and constraints come this way too."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import MessageToDict

from tests.hostile.case import GENERATE, CallCase, Case, Target
from tests.hostile.http_talk import MODEL, HttpCase, Talk, exchange, post
from vscan.v1 import decoder_pb2 as pb

_FAMILIES = {
    *("dimensions", "damaged images", "polyglots", "metadata of images", "videos that lie", "damaged videos"),
    *("control tokens in texts", "JSON schemas", "regular expressions"),
}
_EACH = 4  # one of so many, and none of the largest: the services behind are the same
_ROLES = {pb.ROLE_SYSTEM: "system", pb.ROLE_USER: "user", pb.ROLE_ASSISTANT: "assistant"}
_STATUSES = {"OK": 200, "INVALID_ARGUMENT": 400, "RESOURCE_EXHAUSTED": 429}


def asked_over_http(cases: Iterable[Case]) -> list[Case]:
    """One in four of those that a body can say. A body may be refused for more than a message is: it has to be JSON too."""
    calls = [case for case in cases if isinstance(case, CallCase) and case.family in _FAMILIES]
    chosen = [case for case in calls if (case.target, case.method, case.metadata) == (Target.DECODER, GENERATE, ())]
    return [_over_http(case) for case in chosen[::_EACH]]


def _over_http(case: CallCase) -> HttpCase:
    statuses = {_STATUSES[status.name] for status in case.expected.statuses}
    is_file = case.expected.field is not None and case.expected.field.startswith("messages[0].parts[0]")
    return HttpCase(
        family="HTTP, of other families",
        name=f"{case.family}: {case.name}",
        talk=_talk(case),
        statuses=tuple(statuses | ({400} if "JSON" in case.family else set())),
        param="messages[0].content[0]" if is_file else None,
    )


def _talk(case: CallCase) -> Talk:
    async def talk(host: str, port: int) -> bytes:
        request = case.make()
        assert isinstance(request, pb.GenerateRequest)
        return await exchange(post(body_of(request)))(host, port)

    return talk


def body_of(request: pb.GenerateRequest) -> bytes:
    """The question as a body; a schema stands in it as it is, JSON or not."""
    sampling = MessageToDict(request.sampling, preserving_proto_field_name=True)
    schema, regex = sampling.pop("json_schema", None), sampling.pop("regex", None)
    body: dict[str, Any] = {"model": MODEL, "messages": [_message(message) for message in request.chat.messages]}
    body |= {"max_tokens": sampling.pop("max_new_tokens"), **sampling}
    if regex is not None:
        body["vscan"] = {"regex": regex}
    text = json.dumps(body)
    if schema is not None:
        form = f'{{"type": "json_schema", "json_schema": {{"name": "x", "schema": {schema}}}}}'
        text = f'{text[:-1]}, "response_format": {form}}}'
    return text.encode("utf-8", "surrogatepass")


def _message(message: pb.Message) -> dict[str, Any]:
    return {"role": _ROLES[message.role], "content": [_part(part) for part in message.parts]}


def _part(part: pb.Part) -> dict[str, Any]:
    kind = part.WhichOneof("content")
    if kind == "text":
        return {"type": "text", "text": part.text}
    data = part.video.data if kind == "video" else part.image.data
    url = f"data:{kind}/any;base64,{base64.b64encode(data).decode()}"
    return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
