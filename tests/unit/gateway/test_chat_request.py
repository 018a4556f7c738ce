"""What bodies of `/v1/chat/completions` come to, and how they are refused."""

from __future__ import annotations

import base64
import json
from dataclasses import fields
from typing import Any

import pytest

from gateway_service.chat_request import _OWN, IGNORED, NEEDLESS, ChatRequest, field_of, read_chat
from gateway_service.json_fields import parse_object
from vscan.errors import InvalidArgument
from vscan.specs import FrameCount, JsonSchema, KeepRatio, KeepTokens, Rater, Regex, TotalTokens
from vscan_client import Image, Role, Text, Video
from vscan_client.cli.questions import QuestionOptions

HELLO = [{"role": "user", "content": "hello"}]
DATA = base64.b64encode(b"picture").decode()
MP4 = base64.b64encode(b"film").decode()


def read(**changes: Any) -> ChatRequest:
    body = {"model": "m", "messages": HELLO} | changes
    return read_chat(parse_object(json.dumps(body).encode(), max_values=1000, max_depth=64))


def refusal(**changes: Any) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        read(**changes)
    return caught.value


def parts(*content: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": list(content)}]}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, "detail": "high"}}


def test_messages_become_the_sdks() -> None:
    messages = [
        {"role": "developer", "content": "be short", "name": "house"},
        {"role": "user", "content": [image(f"data:image/png;base64,{DATA}"), {"type": "text", "text": "what is it"}]},
        {"role": "assistant", "content": "a cat", "tool_calls": None, "refusal": None},
        {"role": "user", "content": [{"type": "video_url", "video_url": {"url": f"DATA:video/mp4;base64,{MP4}"}}]},
    ]
    read_messages = read(messages=messages, vscan={"frames": 4}).messages
    assert [message.role for message in read_messages] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.USER]
    assert read_messages[1].parts == (Image.from_bytes(b"picture"), Text("what is it"))
    (video,) = read_messages[3].parts
    assert isinstance(video, Video)
    assert (video.data, video.sampling) == (b"film", FrameCount(4))


def test_options_become_the_sdks() -> None:
    asked = read(
        max_completion_tokens=9,
        max_tokens=9,
        temperature=1,
        n=2,
        stop="end",
        seed=3,
        logprobs=True,
        top_logprobs=5,
        top_k=-1,
        ignore_eos=True,
        vscan={"budget": "total:64", "rater": "random", "keep": "32,50%", "min_p": 0.1, "priority": -4, "report_kept": True},
    )
    sampling, prune, reduction = asked.options["sampling"], asked.options["prune"], asked.options["reduction"]
    assert sampling
    assert prune
    assert reduction
    assert (sampling.max_new_tokens, sampling.temperature, sampling.n, sampling.stop) == (9, 1.0, 2, ("end",))
    assert (sampling.seed, sampling.logprobs, sampling.top_k, sampling.min_p, sampling.ignore_eos) == (3, 5, None, 0.1, True)
    assert (prune.rater, prune.budgets, prune.seed) == (Rater.RANDOM, (KeepTokens(32), KeepRatio(0.5)), 3)
    assert reduction.budget == TotalTokens(64)
    assert (asked.options["priority"], asked.options["report_kept"]) == (-4, True)
    assert (asked.top_logprobs, asked.samples, asked.stream, asked.include_usage) == (5, 2, False, False)


def test_a_least_length_is_met_by_an_answer_that_ends_at_its_greatest() -> None:
    asked = read(min_tokens=8, max_tokens=8, ignore_eos=True).options["sampling"]
    assert asked
    assert (asked.max_new_tokens, asked.ignore_eos) == (8, True)
    assert read(min_tokens=0).messages
    assert refusal(min_tokens=9, max_tokens=8, ignore_eos=True).message.startswith("min_tokens: more than")
    assert "only beside `ignore_eos`" in refusal(min_tokens=8, max_tokens=8).message
    assert refusal(min_tokens="8", ignore_eos=True).field == "min_tokens"


def test_forms_of_an_answer_become_constraints() -> None:
    def constraint(**changes: Any) -> Any:
        sampling = read(**changes).options["sampling"]
        return sampling.constraint if sampling else None

    assert constraint(response_format={"type": "text"}) is None
    assert constraint(response_format={"type": "json_object"}) == JsonSchema('{"type": "object"}')
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["ä"]}}}
    assert constraint(response_format=schema) == JsonSchema('{"enum": ["ä"]}')
    assert constraint(vscan={"regex": "a+"}) == Regex("a+")


def test_what_has_no_effect_is_passed_over_and_what_would_have_one_is_refused() -> None:
    assert read(**dict.fromkeys(IGNORED, "anything")).messages
    assert read(**{name: values[0] for name, values in NEEDLESS.items() if values}).messages
    assert read(**dict.fromkeys(NEEDLESS)).messages, "null asks for nothing"
    for name in NEEDLESS:
        assert refusal(**{name: [{"x": 1}]}).field == name


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"model": None}, "model", "a text"),
        ({"model": 3}, "model", "a text"),
        ({"messages": None}, "messages", "a list"),
        ({"messages": []}, "messages", "at least one"),
        ({"messages": ["x"]}, "messages[0]", "an object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "limit system"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "a text or a list"),
        ({"messages": [*HELLO, {"role": "user", "content": [], "x": 1}]}, "messages[1].x", "no such field"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "surrogate"),
        (parts({"type": "input_audio"}), "messages[0].content[0].type", "limit text, image_url, video_url"),
        (parts(image(f"data:image/png;base64,{DATA}"), role="assistant"), "messages[0].content[0].type", "limit text"),
        (parts({"type": "text", "text": "a"}, image("https://x.example/a.png")),
         "messages[0].content[1].image_url.url", "servers never fetch URLs"),
        (parts(image("file:///etc/passwd")), "messages[0].content[0].image_url.url", "servers never fetch URLs"),
        (parts(image(f"data:text/html;base64,{DATA}")), "messages[0].content[0].image_url.url", "no data URL"),
        (parts(image(f"data:video/mp4;base64,{DATA}")), "messages[0].content[0].image_url.url", "no data URL"),
        (parts(image("data:image/png;base64,!!!")), "messages[0].content[0].image_url.url", "not base64"),
        (parts(image(f"data:image/png;base64,{DATA}\n")), "messages[0].content[0].image_url.url", "not base64"),
        (parts(image(f"data:image/png;base64,{DATA}é")), "messages[0].content[0].image_url.url", "not base64"),
        (parts(image("data:image/png;base64,")), "messages[0].content[0].image_url.url", "is empty"),
        (parts({"type": "image_url", "image_url": "data:"}), "messages[0].content[0].image_url", "an object"),
        ({"temperature": "hot"}, "temperature", "not a value"),
        ({"temperature": 10**400}, "temperature", "no number"),
        ({"n": True}, "n", "not a value"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "one of the two"),
        ({"top_logprobs": 2}, "top_logprobs", "without"),
        ({"stream_options": {}}, "stream_options", "without"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "no such field"),
        ({"best_of": 2}, "best_of", "no such field"),
        ({"vscan": {"budgets": 2}}, "vscan.budgets", "no such field"),
        ({"vscan": {"top_k": 2}, "top_k": 2}, "vscan.top_k", "one of the two"),
        ({"vscan": {"budget": "lots"}}, "vscan.budget", "neither a number"),
        ({"vscan": {"budget": "0%"}}, "vscan.budget", "over 0"),
        ({"vscan": {"keep": "0"}}, "vscan.keep", "at least 1"),
        ({"vscan": {"reduction": "magic"}}, "vscan.reduction", "limit vscan, global"),
        ({"vscan": {"frames": 2, "fps": 2}}, "vscan.frames", "either"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "limit text"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
         "response_format.json_schema.schema", "an object"),
        ({"response_format": {"type": "json_object"}, "vscan": {"regex": "a"}}, "vscan.regex", "one of the two"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_by_its_path(changes: dict[str, Any], field: str, said: str) -> None:
    error = refusal(**changes)
    assert error.field == field
    assert said in error.message


@pytest.mark.parametrize(
    ("field", "on_top", "told"),
    [
        ("sampling.max_new_tokens", "max_tokens", "max_tokens"),
        ("sampling.max_new_tokens", "", "max_completion_tokens"),
        ("sampling.n", "n", "n"),
        ("sampling.logprobs", "logprobs", "logprobs"),
        ("sampling.stop[1]", "stop", "stop"),
        ("sampling.top_k", "top_k", "top_k"),
        ("sampling.top_k", "vscan", "vscan.top_k"),
        ("sampling.json_schema", "response_format", "response_format"),
        ("messages[1].parts[0].image.data", "messages", "messages[1].content[0].image_url.data"),
        ("messages[0].parts[2].text", "messages", "messages[0].content[2].text"),
        ("messages", "messages", "messages"),
        ("request", "messages", "body"),
        ("messages[0].parts[0].video.sampling.frames", "vscan", "vscan.frames"),
        ("messages[0].parts[0].video.sampling.frames_per_second", "vscan", "vscan.fps"),
        ("messages[0].parts[1].video.data", "messages", "messages[0].content[1].video_url.data"),
        ("reduction.budget.ratio", "vscan", "vscan.budget"),
        ("prune.budgets[0].tokens", "vscan", "vscan.keep"),
        ("priority", "vscan", "vscan.priority"),
    ],
)
def test_the_decoders_fields_are_told_as_the_body_has_them(field: str, on_top: str, told: str) -> None:
    assert field_of(field, frozenset({on_top})) == told


def test_every_option_under_the_own_key_is_one_of_the_sdks() -> None:
    assert {field.name for field in fields(QuestionOptions)} >= _OWN


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"model": "m", "model": "n"}', "a member twice"),
        (b'{"x": [{"y": 1, "y": 1}]}', "a member twice"),
        (b'{"temperature": 1e400}', "too large"),
        (b'{"temperature": -1e400}', "too large"),
        (b'{"temperature": Infinity}', "not JSON"),
        (b'{"x": ' + b"9" * 5000 + b"}", "not JSON"),
        ('{"model": "m"}'.encode("utf-16"), "not JSON"),
        (b'{"model": "\xed\xa0\x80"}', "not JSON"),
        (b"[" + b"[]," * 1000 + b"1]", "too many values, limit 1,000"),
        (b'{"x": ' + b"[" * 65 + b"]" * 65 + b"}", "limit 64 levels"),
    ],
)
def test_json_that_may_be_read_in_two_ways_or_is_too_much_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        parse_object(body, max_values=1000, max_depth=64)
    assert caught.value.field == "body"


def test_an_error_repeats_nothing_that_a_terminal_would_obey() -> None:
    for name in ("\r\n\x1b[2J", "\x00" * 99, "é", "\u202e"):
        message = refusal(**{name: 1}).message
        assert message.isascii() or "…" in message
        assert message.isprintable()


@pytest.mark.parametrize("changes", [{"seed": "x" * 9999}, {"vscan": {"budget": "9" * 9999}}, {"vscan": {"keep": "9" * 9999}}])
def test_an_error_repeats_little_of_what_was_sent(changes: dict[str, Any]) -> None:
    assert len(refusal(**changes).message) < 300
