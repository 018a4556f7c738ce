"""Log lines: what is in them, and what never is."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from opentelemetry.sdk.trace import TracerProvider

from vscan.telemetry.logs import add_request_fields, configure_logging, log_fields, request_fields, short_digest


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def written(log_format: Literal["text", "json"], write: Any, log_level: str = "info") -> str:
    stream = io.StringIO()
    configure_logging(log_format=log_format, log_level=log_level, stream=stream)
    write(logging.getLogger("vscan.test"))
    return stream.getvalue()


def failing(logger: logging.Logger) -> None:
    try:
        raise ValueError("inner")
    except ValueError:
        logger.exception("it failed")


@pytest.mark.usefixtures("root_logger")
class TestJson:
    def test_a_line_is_an_object_with_its_fields(self) -> None:
        text = written("json", lambda log: log.info("request", extra=log_fields({"images": 2, "place": "redis", "ratio": 0.5})))
        entry = json.loads(text)
        assert text.count("\n") == 1
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
        assert entry == {
            "level": "info",
            "logger": "vscan.test",
            "message": "request",
            "images": 2,
            "place": "redis",
            "ratio": 0.5,
        }

    def test_the_current_span_is_in_it(self) -> None:
        with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
            entry = json.loads(written("json", lambda log: log.warning("x")))
            context = span.get_span_context()
        assert entry["trace_id"] == f"{context.trace_id:032x}"
        assert entry["span_id"] == f"{context.span_id:016x}"

    def test_a_traceback_stays_on_the_line(self) -> None:
        text = written("json", failing)
        assert text.count("\n") == 1
        assert "ValueError: inner" in json.loads(text)["traceback"]

    def test_fields_cannot_pass_for_the_line_s_own(self) -> None:
        text = written("json", lambda log: log.info("m", extra=log_fields({"level": "fake", "trace_id": "fake"})))
        entry = json.loads(text)
        assert entry["level"] == "info"
        assert entry.get("trace_id") != "fake"


@pytest.mark.usefixtures("root_logger")
class TestText:
    def test_a_line_has_its_fields_and_its_trace(self) -> None:
        with TracerProvider().get_tracer("t").start_as_current_span("s") as span:
            text = written("text", lambda log: log.info("request", extra=log_fields({"images": 2, "ok": True, "why": "a b"})))
            trace_id = f"{span.get_span_context().trace_id:032x}"
        assert text.endswith(f" info vscan.test request images=2 ok=true why=<str:3> trace={trace_id}\n")

    def test_a_message_cannot_make_a_second_line(self) -> None:
        text = written("text", lambda log: log.info("one\n2026-01-01T00:00:00.000Z info vscan.request forged"))
        assert text.count("\n") == 1

    def test_a_traceback_follows(self) -> None:
        assert "ValueError: inner" in written("text", failing)

    def test_the_level_is_heeded(self) -> None:
        assert written("text", lambda log: log.info("x"), log_level="warning") == ""


@pytest.mark.usefixtures("root_logger")
def test_configuring_again_does_not_double_the_lines() -> None:
    configure_logging(stream=io.StringIO())
    assert written("text", lambda log: log.info("x")).count("\n") == 1


def test_fields_belong_to_their_request_alone() -> None:
    async def request(number: int) -> dict[str, object]:
        with request_fields() as fields:
            add_request_fields(number=number)
            await asyncio.sleep(0)
            add_request_fields(twice=2 * number)
            return dict(fields)

    async def both() -> tuple[dict[str, object], dict[str, object]]:
        one, two = await asyncio.gather(request(1), request(2))
        return one, two

    assert asyncio.run(both()) == ({"number": 1, "twice": 2}, {"number": 2, "twice": 4})


def test_a_task_of_the_request_adds_to_its_line() -> None:
    async def request() -> dict[str, object]:
        async def child() -> None:
            add_request_fields(child=1)

        with request_fields() as fields:
            await asyncio.create_task(child())
            return dict(fields)

    assert asyncio.run(request()) == {"child": 1}


def test_outside_a_request_nothing_happens() -> None:
    add_request_fields(lost=1)
    with request_fields() as fields:
        assert fields == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3, 3),
        (True, True),
        (1 / 3, 0.333),
        ("redis", "redis"),
        ("messages[0].parts[1].image", "messages[0].parts[1].image"),
        ("What is in the picture?", "<str:23>"),
        ("x" * 1000, "<str:1000>"),
        ("ab" * 32, "<str:64>"),  # a whole digest
        (b"\x89PNG", "<bytes:4>"),
        (["What", "is"], "<list>"),
    ],
)
def test_a_field_is_a_number_a_flag_or_a_word(value: Any, shown: object) -> None:
    with request_fields() as fields:
        add_request_fields(field=value)
    assert fields == {"field": shown}
    assert log_fields(dict(fields)) == log_fields({"field": value})


def test_a_digest_shows_eight_digits() -> None:
    assert short_digest(bytes(range(32))) == "00010203"
