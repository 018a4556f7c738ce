"""Services as processes that are told to end while they are asked: what was accepted is answered."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import grpc.aio
import pytest

from tests.support.asking import PICTURE, ask, chat, decoder_stub
from tests.support.decoder import PARITY_CHECKPOINT
from tests.support.encoder import encode_request, encoder_channel, encoder_stub, png
from tests.support.service_process import ServiceProcess, health_of
from tests.support.stack import ProcessStack, process_stack
from tests.support.until import until
from vscan.errors import Unavailable, VScanError
from vscan.rpc.error_details import error_from_rpc

ASKING = 6
LONG = 500


@pytest.fixture(scope="module")
def once_started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessStack]:
    patient = {"drain_seconds": 600}
    folder = tmp_path_factory.mktemp("stack")
    with process_stack(folder, checkpoint=PARITY_CHECKPOINT, encoder=patient, decoder=patient) as stack:
        yield stack


@pytest.fixture
def stack(once_started: ProcessStack) -> ProcessStack:
    """Both services; what a test before has ended is started again."""
    for process in (once_started.encoder, once_started.decoder):
        if not process.runs:
            process.log.unlink()
            process.launch()
            process.wait_ready()
    return once_started


class Answered:
    """How each call ended: how many well, and the others' errors."""

    def __init__(self) -> None:
        self.well = 0
        self.errors: list[VScanError] = []


async def keep_asking(address: str, name: int, answered: Answered) -> None:
    """Until the decoder takes no more."""
    async with decoder_stub(address) as stub:
        while not answered.errors:
            try:
                reply = await ask(stub, chat(PICTURE, f"w{name}", max_new_tokens=20))
            except VScanError as error:
                answered.errors.append(error)
                return
            assert len(reply.ids) == 20
            answered.well += 1


async def keep_encoding(address: str, name: int, answered: Answered) -> None:
    """Until the encoder takes no more; another image each time."""
    async with encoder_channel(address) as channel:
        for number in range(10_000):
            try:
                reply = await encoder_stub(channel).Encode(encode_request(png(name * 10_000 + number)), timeout=60)
            except grpc.aio.AioRpcError as error:
                answered.errors.append(error_from_rpc(error))
                return
            assert reply.visual_tokens.tokens.data
            answered.well += 1


def code_of(process: ServiceProcess) -> asyncio.Task[int | None]:
    """Tells it to end; the exit code."""
    return asyncio.create_task(asyncio.to_thread(process.stop))


async def test_a_decoder_finishes_what_it_has_taken(stack: ProcessStack) -> None:
    each = [Answered() for _ in range(ASKING)]
    asking = [asyncio.create_task(keep_asking(stack.decoder_address, name, one)) for name, one in enumerate(each)]
    async with decoder_stub(stack.decoder_address) as stub:
        await until(lambda: all(one.well > 1 for one in each), what="everybody to be answered")
        running: Any = stub.Generate(chat(PICTURE, "w9", max_new_tokens=LONG))
        await running.read()
        code = code_of(stack.decoder)
        kinds = []
        while event := await running.read():
            kinds.append(event.WhichOneof("event"))
        await asyncio.gather(*asking)
    assert await code == 0
    assert kinds.count("finished") == 1
    assert kinds[-1] == "finished"
    assert {type(error) for one in each for error in one.errors} == {Unavailable}
    assert "were cancelled" not in stack.decoder.log.read_text()


async def test_a_second_signal_ends_a_decoder_at_once(stack: ProcessStack) -> None:
    async with decoder_stub(stack.decoder_address) as stub:
        # To a port where nobody was a moment ago gRPC's pause before the next look may still last.
        running: Any = stub.Generate(chat(PICTURE, "w9", max_new_tokens=3900), wait_for_ready=True)
        await running.read()
        process = stack.decoder._process
        assert process is not None
        code = code_of(stack.decoder)

        async def stops() -> bool:
            return not (await asyncio.to_thread(health_of, stack.decoder_address, ""))[0]

        await until(stops, what="the decoder to stop")
        process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await read_all(running)
    assert await code == 0
    # In the service's words or, on a machine so slow that they are not out within a second, in gRPC's.
    assert type(error_from_rpc(ended.value)) is Unavailable


async def test_an_encoder_finishes_what_it_has_taken(once_started: ProcessStack) -> None:
    stack = once_started  # it needs no decoder
    each = [Answered() for _ in range(ASKING)]
    asking = [asyncio.create_task(keep_encoding(stack.encoder_address, name, one)) for name, one in enumerate(each)]
    await until(lambda: all(one.well > 1 for one in each), what="everybody to be answered")
    assert await code_of(stack.encoder) == 0
    await asyncio.gather(*asking)
    assert {type(error) for one in each for error in one.errors} == {Unavailable}
    assert "were cancelled" not in stack.encoder.log.read_text()


async def read_all(call: Any) -> None:
    while await call.read():
        pass
