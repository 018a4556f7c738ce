"""However many strangers call, and whatever they send, there are no more series: labels come from this side alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc.aio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.support.identities import IdentitiesFile
from tests.support.toy_services import ToyDecoder, failure, raw, serving_decoder
from vscan.errors import InvalidArgument
from vscan.rpc.settings import RpcSettings
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

Series = frozenset[tuple[str, Any]]


async def say_no(word: str) -> None:
    if word == "Describe":
        return
    raise InvalidArgument(f"raw.{word}", f"does not like {word}", limit=word)


def series(reader: InMemoryMetricReader) -> dict[str, set[Series]]:
    """The sets of labels of each metric."""
    data: Any = reader.get_metrics_data()
    metrics = [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics]
    return {metric.name: {frozenset(point.attributes.items()) for point in metric.data.data_points} for metric in metrics}


async def strangers_call(channel: grpc.aio.Channel, token: str, numbers: Iterable[int]) -> None:
    """Each with methods, tokens, tenants, models and fields that nobody else has."""
    stub = decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]
    known = ("authorization", f"Bearer {token}")
    for number in numbers:
        for method in (f"/vscan.v1.Decoder/Method{number}", f"/service{number}/Generate", f"/grpc.s{number}/M"):
            error = await failure(channel.unary_unary(method, None, None)(b"", metadata=(known,)))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
        for metadata in (
            (("authorization", f"Bearer token{number}"),),
            (known, ("x-vscan-tenant", f"tenant{number}")),
            (known, ("x-vscan-model", f"model{number}"), ("user-agent", f"agent{number}")),
            (known, ("x-vscan-on-behalf-of", f"tenant{number}")),
        ):
            await failure(stub.Generate(raw(f"word{number}"), metadata=metadata))
        on_behalf = (known, ("x-vscan-on-behalf-of", f"tenant{number}"))
        await stub.Describe(decoder_pb2.DescribeDecoderRequest(), metadata=on_behalf)


async def test_strangers_make_no_series(tmp_path: Path) -> None:
    people = IdentitiesFile(tmp_path)
    token = people.add("decoder", on_behalf_of=True)
    reader = InMemoryMetricReader()
    telemetry = Telemetry(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    settings = RpcSettings(identities_file=people.path, drain_seconds=0)
    async with (
        serving_decoder(ToyDecoder(say_no), settings, telemetry) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        await strangers_call(channel, token, range(2))
        few = series(reader)
        await strangers_call(channel, token, range(2, 40))
        assert series(reader) == few
    methods = {dict(labels)[names.ATTR_RPC_METHOD] for labels in few[names.METRIC_REQUESTS.name]}
    assert methods == {"/vscan.v1.Decoder/Generate", "/vscan.v1.Decoder/Describe"}
    refused = {(names.ATTR_RPC_METHOD, "/vscan.v1.Decoder/Generate"), (names.ATTR_REFUSAL, "unauthenticated")}
    assert few[names.METRIC_REFUSALS.name] == {frozenset(refused)}


async def test_a_tenant_is_a_label_only_if_the_file_names_it(tmp_path: Path) -> None:
    people = IdentitiesFile(tmp_path)
    tokens = [people.add(f"app{number}", "shop") for number in range(20)]
    people.limit("shop", requests_per_second=0.001, burst=1)
    reader = InMemoryMetricReader()
    telemetry = Telemetry(meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    settings = RpcSettings(identities_file=people.path, drain_seconds=0)
    async with (
        serving_decoder(ToyDecoder(), settings, telemetry) as (_, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        describe = decoder_pb2_grpc.DecoderStub(channel).Describe  # type: ignore[no-untyped-call]
        known = [(("authorization", f"Bearer {token}"),) for token in tokens]
        await describe(decoder_pb2.DescribeDecoderRequest(), metadata=known[0])
        for metadata in known[1:]:
            await failure(describe(decoder_pb2.DescribeDecoderRequest(), metadata=metadata))
        refused = series(reader)[names.METRIC_REFUSALS.name]
    method = (names.ATTR_RPC_METHOD, "/vscan.v1.Decoder/Describe")
    assert refused == {frozenset({method, (names.ATTR_REFUSAL, "rate"), (names.ATTR_TENANT, "shop")})}
