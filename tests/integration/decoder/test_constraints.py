"""Constrained answers of a random model over real gRPC: whatever it would rather say, what comes fits."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.asking import Reply, ask, chat, decoder_stub, refusal
from tests.support.qwen import IM_END, shared_qwen
from tests.support.stack import in_process_stack
from vscan.errors import InvalidArgument
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")
Stub = decoder_pb2_grpc.DecoderStub
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "name": {"type": "string", "maxLength": 8},
    },
    "required": ["colour", "count", "name"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    """A tiny Qwen2.5-VL: a byte-level tokenizer, so that it can write anything."""
    directory, _ = shared_qwen()
    async with in_process_stack(checkpoint=directory) as stack, decoder_stub(stack.decoder_address) as stub:
        yield stub


def constrained(**fields: Any) -> pb.GenerateRequest:
    return chat("what is it?", **{"max_new_tokens": 400, "ignore_eos": False} | fields)


def assert_fits(reply: Reply) -> None:
    value = json.loads(reply.text)
    assert set(value) == {"colour", "count", "name"}
    assert value["colour"] in ("red", "blue")
    assert type(value["count"]) is int
    assert 0 <= value["count"] <= 99
    assert len(value["name"]) <= 8
    assert reply.finished.reason == pb.FINISH_REASON_CONSTRAINT
    assert reply.finished.usage.completion_tokens == len(reply.ids)


@pytest.mark.parametrize("ignore_eos", [False, True])
@pytest.mark.parametrize("fields", [{}, {"temperature": 1.5, "seed": 1}, {"temperature": 2.0, "seed": 2, "top_p": 0.9}])
async def test_an_answer_fits_its_schema(stub: Stub, fields: dict[str, Any], ignore_eos: bool) -> None:
    reply = await ask(stub, constrained(json_schema=json.dumps(SCHEMA), ignore_eos=ignore_eos, **fields))
    assert_fits(reply)
    assert IM_END not in reply.ids


@pytest.mark.parametrize("pattern", ["(yes|no)", "^[0-9]{3}-[0-9]{4}$", "a (red|blue) (star|circle)", "é🙂{2}"])
async def test_an_answer_matches_its_expression(stub: Stub, pattern: str) -> None:
    for seed in range(3):
        reply = await ask(stub, constrained(regex=pattern, temperature=1.5, seed=seed))
        assert re.fullmatch(pattern, reply.text)
        assert reply.finished.reason == pb.FINISH_REASON_CONSTRAINT
        assert not any("\ufffd" in delta.text for delta in reply.deltas)


async def test_an_answer_without_a_last_character_ends_by_length_or_by_the_models_own_end(stub: Stub) -> None:
    for seed in range(4):
        reply = await ask(stub, constrained(regex="[ab]{2,}", temperature=2.0, seed=seed, max_new_tokens=30))
        assert re.fullmatch("[ab]{2,}", reply.text)
        assert reply.finished.reason in (pb.FINISH_REASON_END_OF_SEQUENCE, pb.FINISH_REASON_LENGTH)
    for seed in range(4):
        reply = await ask(stub, constrained(regex="[ab]+", temperature=2.0, seed=seed, max_new_tokens=30, ignore_eos=True))
        assert reply.finished.reason == pb.FINISH_REASON_LENGTH


async def test_the_length_cuts_a_constrained_answer(stub: Stub) -> None:
    reply = await ask(stub, constrained(json_schema=json.dumps(SCHEMA), max_new_tokens=3))
    assert reply.finished.reason == pb.FINISH_REASON_LENGTH
    assert len(reply.ids) == 3


async def test_a_stop_string_and_penalties_go_with_a_constraint(stub: Stub) -> None:
    reply = await ask(stub, constrained(regex="[ab]+c[ab]+c[ab]+", stop=["c"], frequency_penalty=1.0, max_new_tokens=100))
    assert re.fullmatch("[ab]+", reply.text)
    assert reply.finished.reason == pb.FINISH_REASON_STOP_STRING


async def test_log_probabilities_are_of_the_model_without_its_constraint(stub: Stub) -> None:
    free = await ask(stub, constrained(max_new_tokens=1, logprobs=5))
    bound = await ask(stub, constrained(regex="[0-9]x", logprobs=5))
    assert [top.token_id for top in bound.tokens[0].top] == [top.token_id for top in free.tokens[0].top]
    assert [top.logprob for top in bound.tokens[0].top] == pytest.approx([top.logprob for top in free.tokens[0].top], abs=1e-4)
    assert bound.tokens[0].logprob <= bound.tokens[0].top[0].logprob


async def test_constrained_and_free_answers_share_steps(stub: Stub) -> None:
    """Each is what it is alone."""
    asked = [
        constrained(json_schema=json.dumps(SCHEMA), temperature=1.5, seed=5),
        constrained(max_new_tokens=25, temperature=1.2, seed=6),
        constrained(regex="(yes|no)", temperature=1.5, seed=7),
        constrained(max_new_tokens=25, repetition_penalty=1.5),
    ]
    alone = [await ask(stub, request) for request in asked]
    together = await asyncio.gather(*[ask(stub, request) for request in asked * 2])
    assert [reply.ids for reply in together] == [reply.ids for reply in alone] * 2
    assert_fits(together[0])


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "not JSON": ({"json_schema": "{"}, "sampling.json_schema", "not JSON"),
    "no schema": ({"json_schema": '{"type": "objekt"}'}, "sampling.json_schema", "Invalid type"),
    "not supported": ({"json_schema": '{"not": {}}'}, "sampling.json_schema", "Unimplemented"),
    "no expression": ({"regex": "(yes"}, "sampling.regex", "unclosed group"),
    "too complex": ({"regex": "(a{1000}){1000}"}, "sampling.regex", "too many expressions"),
    "too long": ({"regex": "a" * 16_385}, "sampling.regex", "16,385 characters, limit 1 to 16,384"),
    "min_p NaN": ({"min_p": float("nan")}, "sampling.min_p", "nan, limit 0 to 1"),
    "repetition 0": ({"repetition_penalty": 0}, "sampling.repetition_penalty", "0, limit 0.01 to 2"),
    "presence 9": ({"presence_penalty": 9}, "sampling.presence_penalty", "9, limit -2 to 2"),
    "frequency NaN": ({"frequency_penalty": float("nan")}, "sampling.frequency_penalty", "nan, limit -2 to 2"),
    "no token": ({"stop_token_ids": [1, 320]}, "sampling.stop_token_ids[1]", "320, limit 0 to 319"),
    "many stop tokens": ({"stop_token_ids": [1] * 65}, "sampling.stop_token_ids", "65 stop tokens, limit 64"),
}


@pytest.mark.parametrize(("fields", "field", "words"), REFUSED.values(), ids=REFUSED)
async def test_what_is_refused_is_named_and_the_next_request_works(
    stub: Stub, fields: dict[str, Any], field: str, words: str
) -> None:
    error = await refusal(stub, constrained(**fields))
    assert isinstance(error, InvalidArgument)
    assert error.field == field
    assert words in error.message
    assert (await ask(stub, constrained(regex="(yes|no)"))).text in ("yes", "no")
