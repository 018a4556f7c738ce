"""Limits of tenants, over real gRPC: who is refused, what is counted, and that every end of a call gives its place back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.support.identities import IdentitiesFile
from tests.support.toy_services import ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import InternalError, InvalidArgument, ResourceExhausted
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant_limits import TenantCounts
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan.v1 import decoder_pb2

DESCRIBE = decoder_pb2.DescribeDecoderRequest()


class Worded(ToyDecoder):
    """Waits at the word "wait", fails at "fail" and refuses at "refuse"."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        super().__init__(self._meet)

    async def _meet(self, word: str) -> None:
        match word:
            case "wait":
                await self.go_on.wait()
            case "fail":
                raise RuntimeError("a fault")
            case "refuse":
                raise InvalidArgument("raw.text", "refused")


class Server:
    """A running one, and what it counts."""

    def __init__(self, server: RpcServer, stub: Any, servicer: Worded, people: IdentitiesFile) -> None:
        self.server, self.stub, self.servicer, self.people = server, stub, servicer, people

    @property
    def counts(self) -> TenantCounts:
        return self.server.tenant_counts

    def generate(self, name: str, text: str, *, on_behalf_of: str = "", **options: Any) -> Any:
        """Begins a stream as somebody."""
        metadata = [("authorization", f"Bearer {self.people.tokens[name]}")]
        if on_behalf_of:
            metadata.append(("x-vscan-on-behalf-of", on_behalf_of))
        return self.stub.Generate(raw(text), metadata=tuple(metadata), **options)

    async def describe(self, name: str) -> None:
        await self.stub.Describe(DESCRIBE, metadata=(("authorization", f"Bearer {self.people.tokens[name]}"),))


@asynccontextmanager
async def serving(people: IdentitiesFile, telemetry: Telemetry | None = None, **changes: Any) -> AsyncIterator[Server]:
    servicer = Worded()
    rpc = RpcSettings(identities_file=people.path, drain_seconds=0, **changes)
    async with serving_decoder(servicer, rpc, telemetry) as (server, address), decoder_stub(address) as stub:
        yield Server(server, stub, servicer, people)


@pytest.fixture
def people(tmp_path: Path) -> IdentitiesFile:
    return make_people(tmp_path)


def make_people(folder: Path) -> IdentitiesFile:
    people = IdentitiesFile(folder)
    people.add("web", "shop")
    people.add("app", "shop")
    people.add("lab", "lab")
    people.add("decoder", on_behalf_of=True)
    return people


async def refusal(call: Any) -> ResourceExhausted:
    error = error_from_rpc(await failure(call))
    assert isinstance(error, ResourceExhausted)
    assert error.retry_delay_ms > 0
    return error


async def test_a_tenants_places_are_those_of_all_its_identities(people: IdentitiesFile) -> None:
    people.limit("shop", max_concurrent_calls=1)
    async with serving(people) as server:
        running = server.generate("web", "wait")
        await running.read()
        assert "1 calls of this tenant" in (await refusal(server.generate("app", "one"))).message
        assert "1 calls of this tenant" in (await refusal(server.describe("app"))).message
        await server.describe("lab")  # others are not touched
        server.servicer.go_on.set()
        async for _ in running:
            pass
        await until(lambda: not server.counts.running)
        await server.describe("app")


async def test_half_of_the_service_is_the_most_of_a_tenant_unless_told(people: IdentitiesFile) -> None:
    async with serving(people, max_concurrent_calls=4) as server:
        running = [server.generate("web", "wait") for _ in range(2)]
        for call in running:
            await call.read()
        await refusal(server.generate("web", "one"))
        await server.describe("lab")


async def test_a_rate_of_the_settings_is_the_one_of_every_tenant(people: IdentitiesFile) -> None:
    async with serving(people, tenant_requests_per_second=0.001, tenant_burst=2) as server:
        for name in ("web", "lab"):
            for _ in range(2):
                await server.describe(name)
            error = await refusal(server.describe(name))
            assert 900_000 < error.retry_delay_ms <= 1_000_000
        people.limit("lab", requests_per_second=1000)
        await until(lambda: is_let_in(server, "lab"))


async def is_let_in(server: Server, name: str) -> bool:
    try:
        await server.describe(name)
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_what_a_decoder_asks_on_behalf_is_not_held_to_the_limits_again(people: IdentitiesFile) -> None:
    people.limit("shop", requests_per_second=0.001, burst=1, max_concurrent_calls=1)
    people.limit("default", requests_per_second=0.001, burst=1, max_concurrent_calls=1)
    async with serving(people) as server:
        running = [server.generate("decoder", "wait", on_behalf_of="shop") for _ in range(3)]
        for call in running:
            await call.read()
        for _ in range(3):
            await server.describe("decoder")
        assert server.counts.running == {}


async def test_refusals_are_counted_by_reason(people: IdentitiesFile) -> None:
    reader = InMemoryMetricReader()
    people.limit("shop", requests_per_second=0.001, burst=1)
    people.limit("lab", max_concurrent_calls=1)
    telemetry = Telemetry(meter_provider=MeterProvider([reader]))
    async with serving(people, telemetry) as server:
        await server.describe("web")
        await refusal(server.describe("app"))
        await server.generate("lab", "wait").read()
        await refusal(server.describe("lab"))
        people.tokens["stranger"] = "wrong"
        await failure(server.describe("stranger"))
        await failure(server.generate("web", "one", on_behalf_of="lab"))
    assert refusals(reader) == {
        ("rate", "shop"): 1,
        ("concurrency", "lab"): 1,
        ("unauthenticated", None): 1,
        ("not_allowed", None): 1,
    }


def refusals(reader: InMemoryMetricReader) -> dict[tuple[object, object], float]:
    """By reason and tenant."""
    data: Any = reader.get_metrics_data()
    metrics = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
    return {
        (point.attributes[names.ATTR_REFUSAL], point.attributes.get(names.ATTR_TENANT)): point.value
        for metric in metrics
        if metric.name == names.METRIC_REFUSALS.name
        for point in metric.data.data_points
    }


async def test_a_call_that_is_refused_or_fails_gives_its_place_back(people: IdentitiesFile) -> None:
    people.limit("shop", max_concurrent_calls=1)
    async with serving(people) as server:
        for word, kind in (("refuse", InvalidArgument), ("fail", InternalError)):
            assert isinstance(error_from_rpc(await failure(server.generate("web", word))), kind)
            await until(lambda: not server.counts.running)
        assert (await is_let_in(server, "web")) is True


ENDS = ("finish", "cancel", "deadline", "fault", "refuse", "cancel_unread")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ends=st.lists(st.tuples(st.sampled_from(["web", "app", "lab"]), st.sampled_from(ENDS)), max_size=12),
    seed=st.integers(0, 999),
)
def test_however_calls_end_no_place_is_lost(
    tmp_path_factory: pytest.TempPathFactory, ends: list[tuple[str, str]], seed: int
) -> None:
    asyncio.run(run_interleaved(make_people(tmp_path_factory.mktemp("people")), ends, seed))


async def run_interleaved(people: IdentitiesFile, ends: list[tuple[str, str]], seed: int) -> None:
    """Calls that end in every way, all at once and in random order, over a tenant's places; then all places are there."""
    people.limit("shop", max_concurrent_calls=3)
    order = random.Random(seed)
    async with serving(people) as server:
        order.shuffle(ends)
        async with asyncio.TaskGroup() as group:
            for name, end in ends:
                group.create_task(one_call(server, name, end, order.random() / 50))
            await asyncio.sleep(0)
            server.servicer.go_on.set()
        await until(lambda: server.server.running_calls == 0)
        assert server.counts.running == {}
        server.servicer.go_on.clear()
        full = [server.generate("web", "wait") for _ in range(3)]
        for call in full:
            await call.read()
        assert server.counts.running == {"shop": 3}
        await refusal(server.generate("app", "one"))
        for call in full:
            call.cancel()
        await until(lambda: server.counts.running == {})


async def one_call(server: Server, name: str, end: str, after_s: float) -> None:
    text = {"finish": "one wait two", "fault": "one fail", "refuse": "refuse"}.get(end, "wait")
    call = server.generate(name, text, timeout=0.005 + after_s if end == "deadline" else None)
    try:
        if end.startswith("cancel"):
            if end == "cancel":
                await call.read()
            call.cancel()
        async for _ in call:
            pass
    except (grpc.aio.AioRpcError, asyncio.CancelledError):
        pass
