"""Every accepted request ends exactly once, and what it held is free again: cancelled, late, refused for room, or stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from decoder_service.runner.faults import DeviceLost
from decoder_service.runner.runner import Runner
from decoder_service.wiring import RunningDecoder, serve
from tests.support.asking import PICTURE, ask, chat, decoder_stub, refusal
from tests.support.decoder import decoder_settings
from tests.support.stack import Stack, in_process_stack
from tests.support.until import until
from vscan.errors import DeadlineExceeded, InternalError, ResourceExhausted, Unavailable
from vscan.rpc.error_details import error_from_rpc
from vscan.telemetry.providers import Telemetry
from vscan.v1 import decoder_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")
Stub = decoder_pb2_grpc.DecoderStub
LONG = 3900


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    async with in_process_stack(decoder={"max_running": 1, "max_queue": 1}) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub(stack: Stack) -> AsyncIterator[Stub]:
    async with decoder_stub(stack.decoder_address) as stub:
        yield stub


def occupied(decoder: RunningDecoder) -> tuple[int, int]:
    figures = decoder.engine.figures
    return figures.waiting, figures.running


async def begin(stub: Stub) -> Any:
    """A long answer under way."""
    call: Any = stub.Generate(chat(PICTURE, "w1", max_new_tokens=LONG))
    kinds = [(await call.read()).WhichOneof("event") for _ in range(3)]
    assert kinds == ["started", "delta", "delta"]
    return call


async def nothing_is_held(decoder: RunningDecoder) -> None:
    await until(lambda: occupied(decoder) == (0, 0), what="the engine to be free")
    assert all(segment.rows == 0 for segment in decoder.engine.figures.segments)


async def test_a_cancelled_answer_frees_the_engine(stack: Stack, stub: Stub) -> None:
    call = await begin(stub)
    assert occupied(stack.decoder) == (0, 1)
    call.cancel()
    await nothing_is_held(stack.decoder)
    assert len((await ask(stub, chat("w1"))).ids) == 6


async def test_a_client_that_vanishes_frees_the_engine(stack: Stack, stub: Stub) -> None:
    async with decoder_stub(stack.decoder_address) as other:
        call = await begin(other)
        del call
    await nothing_is_held(stack.decoder)
    assert len((await ask(stub, chat("w1"))).ids) == 6


async def test_a_deadline_ends_a_running_answer(stack: Stack, stub: Stub) -> None:
    error = await refusal(stub, chat(PICTURE, "w1", max_new_tokens=LONG), timeout=0.5)
    assert isinstance(error, DeadlineExceeded)
    await nothing_is_held(stack.decoder)
    assert len((await ask(stub, chat("w1"))).ids) == 6


async def test_a_deadline_ends_a_waiting_request(stack: Stack, stub: Stub) -> None:
    running = await begin(stub)
    error = await refusal(stub, chat("w1"), timeout=0.3)
    assert isinstance(error, DeadlineExceeded)
    await until(lambda: occupied(stack.decoder) == (0, 1), what="the waiting request to leave")
    running.cancel()
    await nothing_is_held(stack.decoder)


async def test_a_full_queue_says_when_to_come_back(stack: Stack, stub: Stub) -> None:
    running = await begin(stub)
    waiting = stub.Generate(chat("w1"))
    await until(lambda: occupied(stack.decoder) == (1, 1), what="a request to wait")
    error = await refusal(stub, chat("w2"))
    assert isinstance(error, ResourceExhausted)
    assert error.retry_delay_ms > 0
    running.cancel()
    events = [event async for event in waiting]
    assert events[-1].WhichOneof("event") == "finished"
    await nothing_is_held(stack.decoder)


# A client that takes little in advance.
NARROW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024), ("grpc.use_local_subchannel_pool", 1)]


async def read_all(call: Any) -> None:
    while await call.read():
        pass


async def test_a_client_that_does_not_read_does_not_keep_the_engine() -> None:
    """gRPC holds what fits its window, then the decoder, up to a bound; the engine goes on with others."""
    async with (
        in_process_stack(decoder={"max_running": 1, "max_unread_events": 20}) as stack,
        grpc.aio.insecure_channel(stack.decoder_address, options=NARROW) as channel,
        decoder_stub(stack.decoder_address) as other,
    ):
        stub: Any = Stub(channel)  # type: ignore[no-untyped-call]
        question = chat(PICTURE, "w1", max_new_tokens=LONG)
        question.sampling.logprobs = 20  # more to send
        unread = stub.Generate(question)
        await unread.read()
        assert len((await ask(other, chat("w1"))).ids) == 6  # which waited until the engine was free
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await read_all(unread)
        assert isinstance(error := error_from_rpc(ended.value), ResourceExhausted)
        assert error.message == "the answer is not read: 20 events wait"
        await nothing_is_held(stack.decoder)


async def test_stopping_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with (
        in_process_stack(decoder={"drain_seconds": 0.2, "max_unread_events": 20}) as stack,
        grpc.aio.insecure_channel(stack.decoder_address, options=NARROW) as channel,
    ):
        stub: Any = Stub(channel)  # type: ignore[no-untyped-call]
        question = chat(PICTURE, "w1", max_new_tokens=LONG)
        question.sampling.logprobs = 20
        unread = stub.Generate(question)
        await unread.read()
        await nothing_is_held(stack.decoder)
        async with asyncio.timeout(60):
            await stack.decoder.server.stop()


async def test_stopping_ends_what_does_not_end_by_itself() -> None:
    """A long answer is told that the service stops, and a later call is refused."""
    async with (
        in_process_stack(decoder={"drain_seconds": 1.0, "max_running": 2}) as stack,
        decoder_stub(stack.decoder_address) as stub,
    ):
        long = stub.Generate(chat(PICTURE, "w1", max_new_tokens=LONG))
        await long.read()
        stopping = asyncio.create_task(stack.decoder.server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            [event async for event in long]
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        await stopping
        assert isinstance(await refusal(stub, chat("w1"), timeout=20), Unavailable)
        await nothing_is_held(stack.decoder)


def lost(self: Runner, pieces: object, copies: object) -> None:
    raise DeviceLost("unplugged")


async def test_a_dead_engine_fails_who_waits_and_the_decoder_says_that_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with in_process_stack() as stack, decoder_stub(stack.decoder_address) as stub:
        monkeypatch.setattr(Runner, "run", lost)
        error = await refusal(stub, chat("w1"))
        assert isinstance(error, InternalError)
        assert "unplugged" not in error.message
        await until(lambda: "engine has failed" in stack.decoder.server.not_ready_reason(), what="the decoder to say so")
        assert isinstance(await refusal(stub, chat("w1")), InternalError | Unavailable)


async def test_a_decoder_whose_engine_died_ends_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that whoever started it starts another."""
    ready_file = tmp_path / "address"
    settings = decoder_settings(encoder_address="127.0.0.1:1", ready_file=ready_file)
    serving = asyncio.create_task(serve(settings, Telemetry()))
    await until(ready_file.is_file, what="the port to open")
    address = ready_file.read_text()
    async with decoder_stub(address) as stub:

        async def answers() -> bool:
            try:
                return len((await ask(stub, chat("w1"))).ids) == 6
            except Unavailable:
                return False

        await until(answers, what="the model to be loaded")
        monkeypatch.setattr(Runner, "run", lost)
        await refusal(stub, chat("w1"))
        with pytest.raises(InternalError, match="engine has failed"):
            await serving
    # The liveness probe asks whether the port is open.
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address.split(":"))
