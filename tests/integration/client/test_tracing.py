"""The span `ask`, and what the server sees of it."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import format_span_id, format_trace_id

from tests.support.client_decoder import ScriptedDeployment
from vscan.errors import InvalidArgument, Unavailable
from vscan.telemetry import names
from vscan_client import AsyncClient, Client, Retry


class Recorded:
    """A tracer provider, and the spans that ended."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


def parent_seen(deployment: ScriptedDeployment, call: int) -> tuple[str, str]:
    """(trace id, span id) that a call brought."""
    _, trace_id, span_id, _ = str(deployment.metadata[call]["traceparent"]).split("-")
    return trace_id, span_id


def identity(span: ReadableSpan) -> tuple[str, str]:
    return format_trace_id(span.context.trace_id), format_span_id(span.context.span_id)


def test_ask_is_the_root_and_each_try_a_call_below_it(deployment: ScriptedDeployment, address: str) -> None:
    recorded = Recorded()
    deployment.fail_with = [Unavailable("stopping")]
    retry = Retry(backoff_ms=1)
    with Client(server=address, tracer_provider=recorded.provider, retry=retry) as client:
        answer = client.ask(b"cat", "what?")
    (ask,) = recorded.named(names.SPAN_ASK)
    calls = recorded.named("/vscan.v1.Decoder/Generate")
    assert ask.parent is None
    assert [call.parent.span_id if call.parent else None for call in calls] == [ask.context.span_id] * 2
    assert [parent_seen(deployment, 0), parent_seen(deployment, 1)] == [identity(call) for call in calls]
    assert answer.client.trace_id == format_trace_id(ask.context.trace_id)
    assert ask.attributes is not None
    assert (ask.attributes[names.ATTR_IMAGES], ask.attributes[names.ATTR_ATTEMPT]) == (1, 2)
    host, _, port = address.partition(":")
    assert (ask.attributes[names.ATTR_SERVER_ADDRESS], ask.attributes[names.ATTR_SERVER_PORT]) == (host, int(port))
    assert ask.attributes[names.ATTR_PLACES] == ("encoded",)
    assert not any("what?" in str(value) for value in ask.attributes.values())


def test_the_callers_span_is_the_parent(deployment: ScriptedDeployment, address: str) -> None:
    recorded = Recorded()
    tracer = recorded.provider.get_tracer("test")
    with Client(server=address, tracer_provider=recorded.provider) as client:
        with tracer.start_as_current_span("page"):
            client.ask(b"cat", "what?")
        client.ask(b"cat", "what?")
    (page,) = recorded.named("page")
    inner, alone = recorded.named(names.SPAN_ASK)
    assert inner.parent is not None
    assert inner.parent.span_id == page.context.span_id
    assert alone.parent is None


async def test_the_async_client_does_the_same(deployment: ScriptedDeployment, address: str) -> None:
    recorded = Recorded()
    async with AsyncClient(server=address, tracer_provider=recorded.provider) as client:
        with recorded.provider.get_tracer("test").start_as_current_span("page"):
            await client.ask(b"cat", "what?")
    (page,), (ask,) = recorded.named("page"), recorded.named(names.SPAN_ASK)
    (call,) = recorded.named("/vscan.v1.Decoder/Generate")
    assert (ask.parent and ask.parent.span_id) == page.context.span_id
    assert parent_seen(deployment, 0) == identity(call)


def test_an_error_marks_the_span(deployment: ScriptedDeployment, address: str) -> None:
    recorded = Recorded()
    deployment.fail_with = [InvalidArgument("x", "bad")]
    with Client(server=address, tracer_provider=recorded.provider) as client, pytest.raises(InvalidArgument):
        client.ask(b"cat", "what?")
    (ask,) = recorded.named(names.SPAN_ASK)
    assert ask.attributes is not None
    assert ask.attributes[names.ATTR_ERROR_TYPE] == "InvalidArgument"
    assert ask.attributes[names.ATTR_ATTEMPT] == 1
    assert ask.attributes[names.ATTR_SERVER_ADDRESS] == "127.0.0.1"
    assert not ask.status.is_ok


def test_a_stream_that_was_left_ends_its_spans(deployment: ScriptedDeployment, address: str) -> None:
    recorded = Recorded()
    deployment.hold_after_first_text.clear()
    with Client(server=address, tracer_provider=recorded.provider) as client, client.stream(b"cat", "what?") as stream:
        next(stream)
    assert len(recorded.named(names.SPAN_ASK)) == 1
    assert len(recorded.named("/vscan.v1.Decoder/Generate")) == 1
