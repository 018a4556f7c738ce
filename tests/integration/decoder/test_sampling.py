"""Sampling over real gRPC: seeds in company, penalties, stop tokens, and what the service says of its defaults."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from tests.support.asking import PICTURE, ask, chat, decoder_stub, refusal
from tests.support.stack import in_process_stack
from vscan.errors import InvalidArgument
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc
from vscan_client import AsyncClient, FinishReason, SamplingSpec

pytestmark = pytest.mark.asyncio(loop_scope="module")
Stub = decoder_pb2_grpc.DecoderStub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    async with in_process_stack() as stack, decoder_stub(stack.decoder_address) as stub:
        yield stub


def random_fields(generator: random.Random) -> dict[str, Any]:
    return {
        "temperature": generator.choice([0.0, 0.8, 1.6]),
        "top_k": generator.choice([0, 5]),
        "top_p": generator.choice([1.0, 0.8]),
        "min_p": generator.choice([0.0, 0.1]),
        "repetition_penalty": generator.choice([1.0, 1.3]),
        "presence_penalty": generator.choice([0.0, 0.7]),
        "frequency_penalty": generator.choice([0.0, 0.4]),
        "seed": generator.getrandbits(64),
        "max_new_tokens": generator.randrange(3, 15),
    }


async def test_the_same_seed_gives_the_same_answer_in_any_company(stub: Stub) -> None:
    generator = random.Random(5)
    asked = [chat(PICTURE, f"w{number}", **random_fields(generator)) for number in range(10)]
    alone = [(await ask(stub, request)).ids for request in asked]
    for _ in range(3):
        order = generator.sample(range(10), 10)
        together = await asyncio.gather(*[ask(stub, asked[number]) for number in order])
        assert [reply.ids for reply in together] == [alone[number] for number in order]


async def test_samples_of_one_prompt_come_in_one_stream(stub: Stub) -> None:
    fields: dict[str, Any] = {"temperature": 1.6, "seed": 11, "max_new_tokens": 7}
    reply = await ask(stub, chat(PICTURE, "w3", n=3, **fields))
    single = await ask(stub, chat(PICTURE, "w3", **fields))
    ids = [[token.token_id for delta in reply.deltas if delta.sample == n for token in delta.tokens] for n in range(3)]
    assert ids[0] == single.ids
    assert len(set(map(tuple, ids))) == 3
    for sample in range(3):
        *others, last = [delta.reason for delta in reply.deltas if delta.sample == sample]
        assert (set(others), last) == ({pb.FINISH_REASON_UNSPECIFIED}, pb.FINISH_REASON_LENGTH)
    finished = reply.finished
    assert [(end.sample, end.reason, end.completion_tokens) for end in finished.samples] == [
        (sample, pb.FINISH_REASON_LENGTH, 7) for sample in range(3)
    ]
    assert (finished.reason, finished.usage.completion_tokens, finished.seed) == (pb.FINISH_REASON_LENGTH, 21, 11)
    assert finished.usage.prompt_tokens == single.finished.usage.prompt_tokens
    assert [(end.sample, end.completion_tokens) for end in single.finished.samples] == [(0, 7)]


async def test_the_sdk_has_all_samples_in_one_answer() -> None:
    sampling = SamplingSpec(n=3, temperature=1.6, seed=11, max_new_tokens=7, ignore_eos=True)
    async with in_process_stack() as stack, AsyncClient(server=stack.decoder_address) as client:
        answer = await client.ask(PICTURE, "w3", sampling=sampling)
        single = await client.ask(PICTURE, "w3", sampling=replace(sampling, n=1))
    assert len({sample.text for sample in answer.samples}) == 3
    assert [len(sample.tokens) for sample in answer.samples] == [7, 7, 7]
    assert (answer.text, answer.tokens, answer.finish_reason) == (single.text, single.tokens, FinishReason.LENGTH)
    assert (answer.usage.completion_tokens, single.usage.completion_tokens) == (21, 7)
    assert (len(single.samples), single.samples[0].text) == (1, single.text)


async def test_more_samples_than_may_run_at_once_are_refused() -> None:
    async with in_process_stack(decoder={"max_running": 2}) as stack, decoder_stub(stack.decoder_address) as stub:
        assert (await stub.Describe(pb.DescribeDecoderRequest())).limits.max_samples == 2
        error = await refusal(stub, chat(PICTURE, "w1", n=3))
        assert str(error) == "sampling.n: 3, limit 1 to 2"
        assert len((await ask(stub, chat(PICTURE, "w1", n=2))).finished.samples) == 2


async def test_priority_orders_ones_own_waiting_requests() -> None:
    """One request may run; while it does, three come, the most urgent last."""
    async with in_process_stack(decoder={"max_running": 1}) as stack, decoder_stub(stack.decoder_address) as stub:
        first = stub.Generate(chat(PICTURE, "w1", max_new_tokens=400))
        await anext(aiter(first))
        ended: list[int] = []

        async def wait(priority: int) -> None:
            request = chat(PICTURE, "w2", max_new_tokens=2)
            request.priority = priority
            call = stub.Generate(request)
            await anext(aiter(call))  # it was accepted
            waiting.release()
            async for _ in call:
                pass
            ended.append(priority)

        waiting = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            for priority in (-1, 0, 100):
                group.create_task(wait(priority))
                await waiting.acquire()
            first.cancel()
        assert ended == [100, 0, -1]


async def test_penalties_make_an_answer_more_varied(stub: Stub) -> None:
    plain = await ask(stub, chat("w1", max_new_tokens=60))
    varied = await ask(stub, chat("w1", max_new_tokens=60, frequency_penalty=2.0, presence_penalty=2.0))
    assert max(Counter(varied.ids).values()) < max(Counter(plain.ids).values())


async def test_a_prompt_counts_for_repetition_alone(stub: Stub) -> None:
    first = (await ask(stub, chat(PICTURE, "w1", max_new_tokens=1))).ids[0]
    question = chat(PICTURE, f"w{first} w1", max_new_tokens=1, presence_penalty=2.0, frequency_penalty=2.0)
    plain = await ask(stub, chat(PICTURE, f"w{first} w1", max_new_tokens=1))
    assert (await ask(stub, question)).ids == plain.ids


async def test_a_stop_token_ends_the_answer_and_has_no_text(stub: Stub) -> None:
    whole = await ask(stub, chat(PICTURE, "w5", max_new_tokens=8))
    stop = whole.ids[3]
    place = whole.ids.index(stop)
    stopped = await ask(stub, chat(PICTURE, "w5", max_new_tokens=8, stop_token_ids=[7, stop]))
    assert stopped.finished.reason == pb.FINISH_REASON_STOP_TOKEN
    assert stopped.ids == whole.ids[: place + 1]
    assert stopped.finished.usage.completion_tokens == place + 1
    assert stopped.text.split() == whole.text.split()[:place]


async def test_what_these_words_cannot_write_is_refused(stub: Stub) -> None:
    """This model's tokens are whole words; the constraint may use them."""
    error = await refusal(stub, chat("w1", json_schema='{"type": "object"}'))
    assert isinstance(error, InvalidArgument)
    assert (error.field, "vocabulary" in error.message) == ("sampling.json_schema", True)
    reply = await ask(stub, chat(PICTURE, "w1", regex="w1[0-9]( w2[0-9]){2}", max_new_tokens=8))
    assert reply.finished.reason == pb.FINISH_REASON_CONSTRAINT
    words = reply.text.split()
    assert [word[:2] for word in words] == ["w1", "w2", "w2"]


async def test_describe_has_the_defaults_and_the_limits(stub: Stub) -> None:
    described = await stub.Describe(pb.DescribeDecoderRequest())
    sampling, limits = described.defaults.sampling, described.limits
    assert (sampling.min_p, sampling.repetition_penalty) == (0.0, 1.0)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.0, 0.0)
    assert all(
        sampling.HasField(name) for name in ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "top_p")
    )
    assert sampling.WhichOneof("constraint") is None
    assert (limits.max_stop_token_ids, limits.max_constraint_chars) == (64, 16_384)
    assert (sampling.n, limits.max_samples) == (1, 8)
