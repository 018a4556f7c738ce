"""The chunks of an answer: what clients and load generators make of their order."""

from __future__ import annotations

from typing import Any

from gateway_service.chat_request import ChatRequest, read_chat
from gateway_service.completions import Completion
from gateway_service.json_fields import Fields
from gateway_service.token_texts import entries
from vscan_client import FinishReason, Started, TextDelta, Token

END = FinishReason.END_OF_SEQUENCE


def asked(**changes: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
    return read_chat(Fields(body | changes))


def begun(**changes: Any) -> Completion:
    completion = Completion(asked(**changes), b"pair")
    completion.begin(Started("r1", (), 7))
    return completion


def deltas(chunks: list[dict[str, Any]]) -> list[Any]:
    return [(choice["index"], choice["delta"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"]]


def test_who_speaks_is_told_with_the_first_token_and_not_before() -> None:
    # vLLM's benchmark, and GenAI-Perf, take the first chunk for the first token.
    completion = begun(n=2)
    first = deltas(list(completion.more(TextDelta("a", (Token(1),), sample=1))))
    assert first == [(1, {"role": "assistant", "content": ""}, None), (1, {"content": "a"}, None)]
    assert deltas(list(completion.more(TextDelta("b", (Token(2),), sample=1, reason=END)))) == [
        (1, {"content": "b"}, None),
        (1, {}, "stop"),
    ]
    assert deltas(list(completion.more(TextDelta("", (Token(3),), sample=0, reason=END)))) == [
        (0, {"role": "assistant", "content": ""}, None),
        (0, {}, "stop"),
    ]


def test_the_usage_so_far_is_in_every_chunk_where_it_is_asked_for() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    completion = begun(stream_options=options)
    told = [chunk for delta in ("a", "b") for chunk in completion.more(TextDelta(delta, (Token(1), Token(2))))]
    assert [chunk["usage"]["completion_tokens"] for chunk in told] == [2, 2, 4]
    assert told[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    for without in ({"include_usage": True}, {"include_usage": True, "continuous_usage_stats": False}):
        (_, chunk) = begun(stream_options=without).more(TextDelta("a", (Token(1),)))
        assert chunk["usage"] is None
    assert "usage" not in next(begun(stream_options={"continuous_usage_stats": True}).more(TextDelta("a")))


def test_tokens_are_called_by_their_text_or_their_number() -> None:
    tokens = [Token(5, -0.5, ((5, -0.5), (2, -1.5)), b"caf\xc3", (b"caf\xc3", None)), Token(6, float("-inf"), (), b"\xa9")]
    first, second = entries(tokens, 2)
    assert (first["token"], first["bytes"], second["bytes"]) == ("caf\ufffd", [99, 97, 102, 0xC3], [0xA9])
    assert [(each["token"], each["bytes"]) for each in first["top_logprobs"]] == [
        ("caf\ufffd", [99, 97, 102, 0xC3]),
        ("token_id:2", None),
    ]
    assert second["logprob"] == -9999.0
    # A decoder of an earlier release tells no texts.
    (older,) = entries([Token(5, -0.5, ((5, -0.5),))], 1)
    assert (older["token"], older["bytes"], older["top_logprobs"][0]["token"]) == ("token_id:5", None, "token_id:5")
