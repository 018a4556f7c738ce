"""Two hundred calls at once over gRPC: each ends with an answer, or with a typed refusal that says when to come back."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from decoder_service.runner.runner import Runner
from decoder_service.wiring import RunningDecoder
from tests.integration.decoder.test_ending import lost, nothing_is_held, occupied
from tests.support.asking import OTHER_PICTURE, PICTURE, ask, chat, decoder_stub, refusal
from tests.support.service_process import health_of
from tests.support.stack import in_process_stack
from tests.support.until import until
from vscan.errors import InternalError, ResourceExhausted, VScanError
from vscan.v1 import decoder_pb2_grpc

MAX_QUEUE = 64


async def ending(stub: decoder_pb2_grpc.DecoderStub, place: int) -> str:
    request = chat((PICTURE, OTHER_PICTURE)[place % 2], f"w{place % 30}", max_new_tokens=1 + place % 6)
    try:
        reply = await ask(stub, request)
    except VScanError as error:
        return "no delay" if isinstance(error, ResourceExhausted) and error.retry_delay_ms < 1 else type(error).__name__
    assert len(reply.ids) == 1 + place % 6
    return "answer"


async def test_two_hundred_calls_at_once_on_a_queue_of_64() -> None:
    settings = {"max_queue": MAX_QUEUE, "max_running": 4, "max_concurrent_calls": 256}
    async with in_process_stack(decoder=settings) as stack, decoder_stub(stack.decoder_address) as stub:
        for picture in (PICTURE, OTHER_PICTURE):
            await ask(stub, chat(picture, "w1"))
        ends = Counter(await asyncio.gather(*(ending(stub, place) for place in range(200))))
        await nothing_is_held(stack.decoder)
        stack.decoder.engine._engine.check_integrity()
    assert set(ends) <= {"answer", "ResourceExhausted"}
    assert ends.total() == 200
    assert ends["answer"] >= MAX_QUEUE


async def test_a_dead_engine_fails_all_that_run_and_wait_and_health_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with in_process_stack(decoder={"max_running": 2}) as stack, decoder_stub(stack.decoder_address) as stub:
        calls = [asyncio.create_task(refusal(stub, chat(PICTURE, f"w{place}", max_new_tokens=3900))) for place in range(6)]
        await until(lambda: occupied(stack.decoder) == (4, 2), what="two to run and four to wait")
        assert (await _health(stack.decoder))[0]
        monkeypatch.setattr(Runner, "run", lost)
        assert {type(error) for error in await asyncio.gather(*calls)} == {InternalError}

        async def told() -> bool:
            serving, why = await _health(stack.decoder)
            return not serving and "engine has failed" in why

        await until(told, what="the health service to say so")


async def _health(decoder: RunningDecoder) -> tuple[bool, str]:
    return await asyncio.to_thread(health_of, decoder.address, "vscan.v1.Decoder")
