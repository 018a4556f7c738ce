"""Deadlines, cancellation, closing: a call that nobody waits for ends on the server, and no thread is left."""

import asyncio
import gc
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.client_decoder import ScriptedDeployment
from tests.support.until import until
from vscan.errors import Cancelled, DeadlineExceeded, ResourceExhausted
from vscan_client import Answer, AsyncClient, Client, Timeout

WAIT_S = 20


def client_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "vscan-client"}


def test_a_deadline_reaches_the_server_and_ends_the_call(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client:
        client.ask(b"cat", "is the connection there?")
        deployment.hold_before.clear()
        with pytest.raises(DeadlineExceeded):
            client.ask(b"cat", "what?", timeout=1)
    assert deployment.cancelled.acquire(timeout=WAIT_S)
    left = deployment.time_left[1]
    assert left is not None
    assert 0 < left < 2


def test_the_clients_timeout_holds_where_a_call_names_none(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address, timeout=Timeout(total=50)) as client:
        client.ask(b"cat", "what?")
        client.ask(b"cat", "what?", timeout=500)
    with Client(server=address, timeout=Timeout(total=None)) as endless:
        endless.ask(b"cat", "what?")
    left = deployment.time_left
    assert left[0] is not None
    assert left[1] is not None
    assert 0 < left[0] < 100 < left[1] < 600  # gRPC rounds what it sends
    assert left[2] is None or left[2] > 10**9  # gRPC's way to say never


def test_leaving_a_stream_cancels_it(deployment: ScriptedDeployment, address: str) -> None:
    deployment.hold_after_first_text.clear()
    with Client(server=address) as client:
        with client.stream(b"cat", "what?") as stream:
            assert next(stream.texts()) == "1"
        assert deployment.cancelled.acquire(timeout=WAIT_S)
        assert list(stream) == []


def test_closing_a_stream_from_another_thread_ends_its_reader(deployment: ScriptedDeployment, address: str) -> None:
    deployment.hold_after_first_text.clear()
    with Client(server=address) as client, ThreadPoolExecutor(1) as pool:
        stream = client.stream(b"cat", "what?")
        assert next(stream.texts()) == "1"
        reading = pool.submit(list, stream)
        stream.close()
        # Whether the close came before or during the reading: it ends, and without an answer.
        error = reading.exception(timeout=WAIT_S)
        assert error is None or isinstance(error, Cancelled)
        assert deployment.cancelled.acquire(timeout=WAIT_S)


def test_closing_a_client_ends_its_calls_in_every_thread(deployment: ScriptedDeployment, address: str) -> None:
    deployment.hold_before.clear()
    client = Client(server=address)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(client.ask, b"cat", "what?") for _ in range(4)]
        for _ in asked:
            assert deployment.entered.acquire(timeout=WAIT_S)
        client.close()
        assert [type(future.exception(timeout=WAIT_S)) for future in asked] == [Cancelled] * 4
    for _ in asked:
        assert deployment.cancelled.acquire(timeout=WAIT_S)


async def test_cancelling_a_task_cancels_its_call(deployment: ScriptedDeployment, address: str) -> None:
    deployment.hold_before.clear()
    async with AsyncClient(server=address) as client:
        task = asyncio.create_task(client.ask(b"cat", "what?"))
        assert await asyncio.to_thread(deployment.entered.acquire, timeout=WAIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(deployment.cancelled.acquire, timeout=WAIT_S)


async def test_closing_an_async_client_is_an_error_of_the_call_not_of_the_task(
    deployment: ScriptedDeployment, address: str
) -> None:
    deployment.hold_before.clear()
    client = AsyncClient(server=address)
    tasks = [asyncio.create_task(client.ask(b"cat", "what?")), asyncio.create_task(client.ask(b"dog", "what?"))]
    for _ in tasks:
        assert await asyncio.to_thread(deployment.entered.acquire, timeout=WAIT_S)
    await client.aclose()
    for task in tasks:
        with pytest.raises(Cancelled):
            await task


async def waiting_to_ask_again(client: AsyncClient, asking: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A call that the server has told to come back in an hour."""
    task = asyncio.create_task(asking)
    await until(lambda: client._core.budget._left < client._core.retry.budget, what="it waits")
    return task


@pytest.mark.parametrize("closes", ["the stream", "the client"])
async def test_closing_ends_a_stream_that_waits_to_ask_again(deployment: ScriptedDeployment, address: str, closes: str) -> None:
    deployment.fail_with = [ResourceExhausted("full", retry_delay_ms=3_600_000)]
    async with AsyncClient(server=address, timeout=Timeout(total=None)) as client:
        stream = client.stream(b"cat", "what?")
        task = await waiting_to_ask_again(client, anext(stream))
        async with asyncio.timeout(WAIT_S):
            await (stream if closes == "the stream" else client).aclose()
            with pytest.raises(Cancelled):
                await task
    assert len(deployment.requests) == 1


async def test_closing_ends_a_description_that_waits_to_be_asked_again(deployment: ScriptedDeployment, address: str) -> None:
    deployment.describe_fails_with = [ResourceExhausted("full", retry_delay_ms=3_600_000)]
    client = AsyncClient(server=address, timeout=Timeout(total=None))
    task = await waiting_to_ask_again(client, client.describe())
    async with asyncio.timeout(WAIT_S):
        await client.aclose()
        with pytest.raises(Cancelled):
            await task


async def test_a_task_that_waits_to_ask_again_can_be_cancelled(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_with = [ResourceExhausted("full", retry_delay_ms=3_600_000)]
    async with AsyncClient(server=address, timeout=Timeout(total=None)) as client:
        task = await waiting_to_ask_again(client, client.ask(b"cat", "what?"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not client._decoders._pauses


def test_many_threads_use_one_client(deployment: ScriptedDeployment, address: str) -> None:
    with Client(server=address) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: client.ask(b"cat", f"number {number}"), range(40)))
    assert [answer.text for answer in answers] == [f"1 image(s): number {number}" for number in range(40)]
    assert len({answer.request_id for answer in answers}) > 1


def test_a_client_works_where_an_event_loop_runs(address: str) -> None:
    async def ask() -> Answer:
        with Client(server=address) as client:
            return client.ask(b"cat", "what?")

    assert asyncio.run(ask()).text == "1 image(s): what?"


def test_no_thread_is_left(address: str) -> None:
    before = client_threads()
    with Client(server=address) as client:
        client.ask(b"cat", "what?")
        assert len(client_threads() - before) == 1
    assert client_threads() == before


def test_a_forgotten_client_takes_its_thread_along(address: str) -> None:
    before = client_threads()
    client = Client(server=address)
    client.ask(b"cat", "what?")
    (thread,) = client_threads() - before
    del client
    gc.collect()
    thread.join(timeout=WAIT_S)
    assert not thread.is_alive()
