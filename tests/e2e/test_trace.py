"""One question is one tree of spans over client, decoder, encoder and Redis, as a collector of OTLP receives it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedded_model.album import draw_album
from tests.support.otlp_collector import CollectedSpan, Node, OtlpCollector, one_tree
from vscan.telemetry import names
from vscan.telemetry.setup import setup_tracing
from vscan_client import Answer, Client
from vscan_client.cli.local_stack import ANY_PORT, LocalStack


@pytest.fixture(scope="module")
def traced() -> Iterator[tuple[list[CollectedSpan], Answer, Answer]]:
    """All spans of a cold and a repeated question, after every process has ended in order."""
    picture = draw_album(5, pictures=1, questions=2)[0]
    with OtlpCollector() as collector:
        telemetry = setup_tracing("vscan-client", otlp_endpoint=collector.endpoint)
        with (
            LocalStack(decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, otlp_endpoint=collector.endpoint) as stack,
            Client(server=stack.addresses.decoder, tracer_provider=telemetry.tracer_provider) as client,
        ):
            cold, repeated = (client.ask(picture.png(), question.text) for question in picture.questions)
        telemetry.shutdown()
        yield collector.spans, cold, repeated


def tree_of(answer: Answer, spans: list[CollectedSpan]) -> Node:
    return one_tree([span for span in spans if span.trace_id == answer.client.trace_id])


def names_below(node: Node) -> set[str]:
    return {child.span.name for child in node.children}


def test_a_cold_question_is_one_tree_over_every_process(traced: tuple[list[CollectedSpan], Answer, Answer]) -> None:
    spans, cold, _ = traced
    root = tree_of(cold, spans)
    assert root.span.name == names.SPAN_ASK
    assert {node.span.service for node in root.walk()} == {"vscan-client", "vscan-decoder", "vscan-encoder"}
    generate = root.only(names.SPAN_GENERATE)
    assert {names.SPAN_RESOLVE_IMAGES, names.SPAN_PREFILL, names.SPAN_DECODE} <= names_below(generate)
    assert generate.only(names.SPAN_PREFILL).only(names.SPAN_PRUNE).span.attributes[names.ATTR_TOKENS_AFTER] == 8
    resolve = generate.only(names.SPAN_RESOLVE_IMAGES)
    assert names.SPAN_REDIS_GET in names_below(resolve)
    encode = resolve.only(names.SPAN_ENCODE)
    expected = {names.SPAN_DECODE_IMAGE, names.SPAN_QUEUE, names.SPAN_VIT, names.SPAN_REDUCE, names.SPAN_CACHE_PUT}
    assert expected <= names_below(encode)
    assert not any(node.span.failed for node in root.walk())


def test_a_repeated_question_asks_neither_redis_nor_the_encoder(traced: tuple[list[CollectedSpan], Answer, Answer]) -> None:
    spans, _, repeated = traced
    root = tree_of(repeated, spans)
    assert {node.span.service for node in root.walk()} == {"vscan-client", "vscan-decoder"}
    assert root.only(names.SPAN_RESOLVE_IMAGES).children == []
    root.only(names.SPAN_PREFILL)


def test_the_batch_is_a_trace_of_its_own_that_links_to_the_request(traced: tuple[list[CollectedSpan], Answer, Answer]) -> None:
    spans, cold, _ = traced
    encode = tree_of(cold, spans).only(names.SPAN_ENCODE).span
    linked = [span for span in spans if span.name == names.SPAN_VIT_BATCH and (encode.trace_id, encode.span_id) in span.links]
    assert len(linked) == 1
    assert linked[0].trace_id != encode.trace_id


def test_spans_carry_no_content(traced: tuple[list[CollectedSpan], Answer, Answer]) -> None:
    spans, cold, repeated = traced
    question = draw_album(5, pictures=1, questions=2)[0].questions[0].text
    said = " ".join(str(value) for span in spans for value in span.attributes.values())
    assert question not in said
    assert cold.images[0].sha256.hex() not in said
    assert repeated.images[0].sha256.hex() not in said
