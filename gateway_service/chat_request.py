"""What a body of `/v1/chat/completions` asks, as the SDK's values; and what the decoder calls a field, as the body does."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gateway_service.chat_messages import read_messages
from gateway_service.json_fields import Fields, check_text, shortened
from vscan.errors import InvalidArgument
from vscan_client import Message
from vscan_client.cli.question_file import option_value
from vscan_client.cli.questions import QuestionOptions
from vscan_client.options import AskOptions

OWN = "vscan"  # the key of what is not OpenAI's
# Names in the body, and in `QuestionOptions`.
_SAMPLING = {name: name for name in ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty")} | {
    "n": "samples"
}
_LENGTHS = ("max_completion_tokens", "max_tokens")
# As vLLM has them: beside OpenAI's own, or under `vscan`.
_ALSO_ON_TOP = {"top_k", "min_p", "repetition_penalty", "ignore_eos", "stop_token_ids", "priority"}
_OWN = _ALSO_ON_TOP | {
    *("reduction", "budget", "local_share", "merge", "rater", "keep", "positions"),
    *("regex", "report_kept", "frames", "fps"),
}
_HANDLED = {"model", "messages", "stream", "stream_options", "logprobs", "top_logprobs", "response_format", "min_tokens", OWN}
IGNORED = {
    *("user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("parallel_tool_calls", "prediction"),
}
# Values that ask for nothing beside what is done anyway.
NEEDLESS: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "modalities": (["text"],),
    "logit_bias": ({},),
    "web_search_options": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
}
_KNOWN = _HANDLED | set(_SAMPLING) | set(_LENGTHS) | _ALSO_ON_TOP | IGNORED | set(NEEDLESS)
_ANY_OBJECT = '{"type": "object"}'
_MOST_LOGPROBS = _MOST_TOKENS = 2**32 - 1
_SHOWN_CHARS = 200  # of what is wrong, which may repeat what was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request. `top_logprobs` of each token are told, where `logprobs` are."""

    model: str
    messages: tuple[Message, ...]
    options: AskOptions
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False  # in every chunk, so far
    logprobs: bool = False
    top_logprobs: int = 0
    on_top: frozenset[str] = frozenset()  # the fields of the body

    @property
    def samples(self) -> int:
        """How many answers it asks for."""
        sampling = self.options.get("sampling")
        return (sampling.n if sampling else None) or 1

    def renamed(self, error: InvalidArgument) -> InvalidArgument:
        """An error of the SDK or the decoder, about the field as the body has it."""
        return InvalidArgument(field_of(error.field, self.on_top), error.problem, limit=error.limit, trace_id=error.trace_id)


def read_chat(body: Fields) -> ChatRequest:
    """The request. Raises InvalidArgument naming the field as the body has it."""
    _refuse_others(body)
    on_top = frozenset(body)
    logprobs, top = body.switch("logprobs"), body.whole("top_logprobs", 0, _MOST_LOGPROBS)
    if top and not logprobs:
        body.refuse("top_logprobs", "without `logprobs`")
    stream, include_usage, continuous = _streaming(body)
    try:
        asked = _question_options(body, logprobs=max(top or 0, 1) if logprobs else None)
        return ChatRequest(
            model=body.text("model"),
            messages=read_messages(body, asked.frame_sampling()),
            options=asked.ask_options(),
            stream=stream,
            include_usage=include_usage,
            continuous_usage=continuous,
            logprobs=logprobs,
            top_logprobs=top or 0,
            on_top=on_top,
        )
    except InvalidArgument as error:
        problem = shortened(error.problem, _SHOWN_CHARS)
        raise InvalidArgument(field_of(error.field, on_top), problem, limit=error.limit) from error


def field_of(field: str, on_top: frozenset[str]) -> str:
    """The field of the body that a field of the contract, or an option, comes from.

    sampling.n → n      sampling.max_new_tokens → max_tokens     messages[0].parts[1].image → messages[0].content[1].image_url
    """
    name = re.sub(r"\[\d+\]$", "", field.removeprefix("sampling."))
    if name in {"max_new_tokens", "samples"}:
        return "n" if name == "samples" else next((each for each in _LENGTHS if each in on_top), _LENGTHS[0])
    if name == "logprobs":
        return "top_logprobs" if "top_logprobs" in on_top else "logprobs"
    if name in {"json_schema", "request"}:
        return "response_format" if name == "json_schema" else "body"
    if sampled := re.search(r"\bvideo\.sampling(\.frames_per_second)?", field):
        return f"{OWN}.{'fps' if sampled[1] else 'frames'}"
    if field.startswith("messages["):
        return re.sub(r"\.(image|video)\b(?!_)", r".\1_url", field.replace("].parts[", "].content["), count=1)
    if field.startswith(("reduction.", "prune.")):
        inner = field.split(".")[1].split("[")[0]
        name = "keep" if inner == "budgets" else inner
    return f"{OWN}.{name}" if name in _OWN and name not in on_top else name if name in _KNOWN else field


def _refuse_others(body: Fields) -> None:
    body.only(_KNOWN)
    for name, values in NEEDLESS.items():
        if name in body and body.raw(name) not in values:
            body.refuse(name, "is not supported")
    _check_least(body)


def _check_least(body: Fields) -> None:
    """An answer that goes on to its greatest length has its least one too, and no other has one here."""
    least = body.whole("min_tokens", 0, _MOST_TOKENS)
    if not least:
        return
    if not body.switch("ignore_eos"):
        body.refuse("min_tokens", "is supported only beside `ignore_eos`")
    if any(isinstance(most := body.raw(name), int) and most < least for name in _LENGTHS):
        body.refuse("min_tokens", "more than the answer may have")


def _streaming(body: Fields) -> tuple[bool, bool, bool]:
    """Whether the answer is streamed, whether with its usage, and whether every chunk has the usage so far."""
    stream = body.switch("stream")
    if "stream_options" not in body:
        return stream, False, False
    if not stream:
        body.refuse("stream_options", "without `stream`")
    options = body.object("stream_options")
    options.only({"include_usage", "include_obfuscation", "continuous_usage_stats"})
    usage, continuous = options.switch("include_usage"), options.switch("continuous_usage_stats")
    return stream, usage, usage and continuous


def _question_options(body: Fields, *, logprobs: int | None) -> QuestionOptions:
    found: dict[str, Any] = {"logprobs": logprobs, "max_new_tokens": _length(body)}
    found |= {_SAMPLING[name]: _value(body, name, _SAMPLING[name]) for name in _SAMPLING if name in body}
    found |= {name: _value(body, name, name) for name in _ALSO_ON_TOP if name in body}
    if OWN in body:
        own = body.object(OWN)
        own.only(_OWN)
        for name in own:
            if name in body:
                own.refuse(name, f"beside `{name}`", "one of the two")
            found[name] = _value(own, name, name)
    found["json_schema"] = _schema(body)
    return QuestionOptions(**{name: value for name, value in found.items() if value is not None})


def _value(source: Fields, name: str, option: str) -> Any:
    value = source.raw(name)
    if option == "top_k" and value == -1:  # vLLM's word for all
        return None
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str):
            check_text(text, source.below(name))
    try:
        return option_value(option, value)
    except InvalidArgument as error:
        source.refuse(name, error.problem, error.limit)
    except OverflowError:
        source.refuse(name, "is no number of any use")


def _length(body: Fields) -> int | None:
    given = [name for name in _LENGTHS if name in body]
    lengths = {_value(body, name, "max_new_tokens") for name in given}
    if len(lengths) > 1:
        body.refuse("max_tokens", "beside another `max_completion_tokens`", "one of the two")
    return lengths.pop() if lengths else None


def _schema(body: Fields) -> str | None:
    """The JSON schema that an answer keeps to, as text."""
    if "response_format" not in body:
        return None
    asked = body.object("response_format")
    kind = asked.choice("type", "text", "json_object", "json_schema")
    asked.only({"type", "json_schema"} if kind == "json_schema" else {"type"})
    if kind != "json_schema":
        return _ANY_OBJECT if kind == "json_object" else None
    wrapped = asked.object("json_schema")
    wrapped.only({"name", "description", "schema", "strict"})
    if not isinstance(wrapped.raw("schema"), dict):
        wrapped.refuse("schema", "an object is needed")
    schema = json.dumps(wrapped.raw("schema"), ensure_ascii=False)
    check_text(schema, wrapped.below("schema"))
    return schema
