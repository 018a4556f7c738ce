"""Lines for a reader that is slow, or gone: whoever logs does not wait."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.support.until import until
from vscan.telemetry.log_writer import LogWriter, write_from_a_thread
from vscan.telemetry.logs import configure_logging


@dataclass
class Pipe:
    read_end: int
    stream: IO[str]

    def lines(self, until: str) -> list[str]:
        """All up to the one with that word."""
        with os.fdopen(os.dup(self.read_end)) as reader:
            found: list[str] = []
            while not found or until not in found[-1]:
                found.append(reader.readline())
        return found


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read_end, write_end = os.pipe()
    stream = os.fdopen(write_end, "w")
    yield Pipe(read_end, stream)
    os.close(read_end)
    with suppress(BrokenPipeError):
        stream.close()


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def writer_to(pipe: Pipe, root: logging.Logger, max_lines: int) -> LogWriter:
    handler = configure_logging(log_format="json", stream=pipe.stream)
    root.removeHandler(handler)
    writer = LogWriter(handler, max_lines=max_lines)
    root.addHandler(writer)
    return writer


def test_lines_come_as_they_were_logged_each_with_its_trace(pipe: Pipe, root: logging.Logger) -> None:
    handler = configure_logging(log_format="json", stream=pipe.stream)
    writer = write_from_a_thread(handler)
    assert root.handlers.count(writer) == 1
    assert handler not in root.handlers
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("call") as span:
        logging.getLogger("vscan.test").info("%d of %d", 1, 2)
    logging.getLogger("vscan.test").info("the last")
    assert writer.wait_written(60)
    first, last = (json.loads(line) for line in pipe.lines(until="the last"))
    assert (first["message"], first["trace_id"]) == ("1 of 2", f"{span.get_span_context().trace_id:032x}")
    assert "trace_id" not in last


async def test_a_pipe_that_nobody_reads_holds_up_nobody_and_what_is_lost_is_counted(pipe: Pipe, root: logging.Logger) -> None:
    writer = writer_to(pipe, root, max_lines=10)
    log = logging.getLogger("vscan.test")
    logged = 0
    while not writer.lost:  # returns each time, though at last the pipe and the queue are full
        log.info("line %d %s", logged, "x" * 10_000)
        logged += 1
        if not writer.queue.full():
            writer.wait_written(0.01)
    lost = writer.lost
    os.read(pipe.read_end, 30_000)
    await until(lambda: writer.queue.qsize() <= 8, what="the writer goes on")
    log.info("the last")
    told = [json.loads(line)["message"] for line in pipe.lines(until="the last")[1:]]  # the first one was cut by our reading
    numbers = [int(text.split()[1]) for text in told if text.startswith("line")]
    assert numbers == list(range(numbers[0], logged - lost))
    assert [text for text in told if "were lost" in text] == [f"{lost} lines before this one were lost: nobody read them"]
