"""The one line that ends each request, from a real server."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.toy_services import ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import InvalidArgument
from vscan.rpc.error_details import error_from_rpc
from vscan.telemetry.logs import add_request_fields, configure_logging, short_digest
from vscan.telemetry.providers import Telemetry
from vscan.telemetry.settings import TelemetrySettings
from vscan.telemetry.setup import setup_telemetry
from vscan.v1 import decoder_pb2

PROMPT = "xyzzy plugh"
DIGEST = hashlib.sha256(b"an image").digest()


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where every log line of the process goes, as JSON, from debug up."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logging(log_format="json", log_level="debug", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """As a service has it, without exporters."""
    telemetry = setup_telemetry("vscan-decoder", TelemetrySettings())
    yield telemetry
    telemetry.shutdown()


def requests(stream: io.StringIO) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in stream.getvalue().splitlines()]
    return [entry for entry in entries if entry["logger"] == "vscan.request"]


async def test_a_request_that_went_well(stream: io.StringIO, telemetry: Telemetry) -> None:
    def on_call(context: Any) -> None:
        add_request_fields(request_id="toy", images=2, tokens_before=288, digest=short_digest(DIGEST))

    servicer = ToyDecoder(on_call=on_call)
    async with serving_decoder(servicer, telemetry=telemetry) as (_, address), decoder_stub(address) as stub:
        async for _event in stub.Generate(raw(PROMPT)):
            pass
    (line,) = requests(stream)
    assert line.pop("duration_ms") > 0
    assert len(line.pop("trace_id")) == 32
    assert len(line.pop("span_id")) == 16
    assert line.pop("time")
    assert line == {
        "level": "info",
        "logger": "vscan.request",
        "message": "request",
        "method": "Generate",
        "status": "OK",
        "tenant": "default",
        "request_id": "toy",
        "images": 2,
        "tokens_before": 288,
        "digest": DIGEST.hex()[:8],
    }


async def test_a_request_that_failed_names_the_error_and_its_field(stream: io.StringIO, telemetry: Telemetry) -> None:
    async def before_word(word: str) -> None:
        raise InvalidArgument("raw.text", f"does not like {word}", limit="5")

    async with serving_decoder(ToyDecoder(before_word), telemetry=telemetry) as (_, address), decoder_stub(address) as stub:
        error = error_from_rpc(await failure(stub.Generate(raw(PROMPT))))
    (line,) = requests(stream)
    assert (line["status"], line["error"], line["field"]) == ("INVALID_ARGUMENT", "InvalidArgument", "raw.text")
    assert line["trace_id"] == error.trace_id


async def test_each_way_to_leave_has_its_status(stream: io.StringIO, telemetry: Telemetry) -> None:
    async def forever(_: str) -> None:
        await asyncio.Event().wait()

    async with serving_decoder(ToyDecoder(forever), telemetry=telemetry) as (_, address), decoder_stub(address) as stub:
        call = stub.Generate(raw(PROMPT))
        await call.read()
        call.cancel()
        await until(lambda: len(requests(stream)) == 1)
        await failure(stub.Generate(raw(PROMPT), timeout=0.1))
        await until(lambda: len(requests(stream)) == 2)
    assert [line["status"] for line in requests(stream)] == ["CANCELLED", "DEADLINE_EXCEEDED"]


async def test_a_poll_that_went_well_is_told_at_debug_only(stream: io.StringIO, telemetry: Telemetry) -> None:
    async with serving_decoder(ToyDecoder(), telemetry=telemetry) as (_, address), decoder_stub(address) as stub:
        await stub.Describe(decoder_pb2.DescribeDecoderRequest())
        await failure(stub.Describe(decoder_pb2.DescribeDecoderRequest(), metadata=(("x-vscan-tenant", "x"),)))
    assert [(line["level"], line["status"]) for line in requests(stream)] == [("debug", "OK"), ("info", "INVALID_ARGUMENT")]


async def test_no_line_of_any_level_holds_the_prompt_or_a_whole_digest(stream: io.StringIO, telemetry: Telemetry) -> None:
    def on_call(context: Any) -> None:
        add_request_fields(prompt=PROMPT, digest=DIGEST.hex())

    async def before_word(word: str) -> None:
        raise InvalidArgument("raw.text", f"does not like {word}")

    servicer = ToyDecoder(before_word, on_call=on_call)
    async with serving_decoder(servicer, telemetry=telemetry) as (_, address), decoder_stub(address) as stub:
        await failure(stub.Generate(raw(PROMPT)))
    assert requests(stream)
    for secret in (*PROMPT.split(), DIGEST.hex()):
        assert secret not in stream.getvalue()
