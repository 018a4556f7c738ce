"""A service as a process: how it refuses to start, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.otlp_collector import OtlpCollector
from tests.support.toy_services import decoder_stub
from tests.support.until import until
from vscan.v1 import decoder_pb2

COMMAND = [sys.executable, "-m", "tests.support.toy_service_main"]
ROOT = Path(__file__).parents[3]
END_SECONDS = 60


def environment(**variables: str) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith("VSCAN_")}, **variables}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**variables), cwd=ROOT, capture_output=True, text=True, timeout=END_SECONDS
    )


@contextmanager
def running(
    tmp_path: Path, *arguments: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The process, and the file that will say where it listens."""
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [*COMMAND, f"ready_file={ready}", *arguments],
        env=environment(),
        cwd=ROOT,
        stdout=stdout,
        stderr=stderr,
        text=True,
    )
    try:
        yield process, ready
    finally:
        process.kill()
        process.communicate()


def assert_refused(result: subprocess.CompletedProcess[str], line: str) -> None:
    assert result.returncode == 1
    assert result.stderr == f"vscan-toy: {line}\n"


def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert_refused(run(f"bind={address}"), f"cannot listen on {address}: Address already in use")


def test_plaintext_beyond_this_machine_is_one_line_that_names_what_to_set() -> None:
    assert_refused(
        run("bind=0.0.0.0:0"),
        "plaintext on 0.0.0.0:0 would be open beyond this machine: "
        "set VSCAN_TOY_TLS_CERT_FILE and VSCAN_TOY_TLS_KEY_FILE, or VSCAN_TOY_INSECURE",
    )


def test_an_unknown_setting_is_one_line() -> None:
    assert_refused(run(VSCAN_TOY_BINDD="x"), "VSCAN_TOY_BINDD: no such setting, did you mean VSCAN_TOY_BIND?")


@pytest.mark.parametrize("seconds", ["soon", "1e300"])
def test_a_bad_setting_is_one_line(seconds: str) -> None:
    result = run(VSCAN_TOY_DRAIN_SECONDS=seconds)
    assert result.returncode == 1
    assert result.stderr.startswith("vscan-toy: VSCAN_TOY_DRAIN_SECONDS: ")
    assert result.stderr.count("\n") == 1


def test_a_port_for_metrics_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert_refused(run(f"metrics_bind={address}"), f"cannot serve metrics on {address}: Address already in use")


def test_a_refusal_after_the_port_was_open_is_one_line_and_the_process_ends() -> None:
    assert_refused(run("fault=checkpoint"), "VSCAN_TOY_BIND has nothing to do with it: the checkpoint lacks a half")


def test_a_bug_at_the_start_ends_the_process_with_its_traceback() -> None:
    result = run("fault=bug")
    assert result.returncode not in (0, None)
    assert "ValueError: a bug of ours" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly_after_the_last_spans_and_lines_went_out(tmp_path: Path, number: signal.Signals) -> None:
    with OtlpCollector() as collector:
        arguments = (f"otlp_endpoint={collector.endpoint}", "log_format=json")
        with running(tmp_path, *arguments) as (process, ready):
            await until(ready.exists)
            async with decoder_stub(ready.read_text()) as stub:
                async for _ in stub.Generate(decoder_pb2.GenerateRequest(raw=decoder_pb2.RawPrompt(text="one"))):
                    pass
            process.send_signal(number)
            stdout, stderr = process.communicate(timeout=END_SECONDS)
        assert process.returncode == 0
        assert stderr == ""
        lines = [json.loads(line) for line in stdout.splitlines()]
        request = next(line for line in lines if line["logger"] == "vscan.request")
        assert [span.trace_id for span in collector.spans] == [request["trace_id"]]
        assert collector.spans[0].service == "vscan-toy"
        assert "vscan.requests" in collector.metric_names


async def test_spans_are_printed_on_stderr_where_asked(tmp_path: Path) -> None:
    with running(tmp_path, "trace_console=true") as (process, ready):
        await until(ready.exists)
        async with decoder_stub(ready.read_text()) as stub:
            async for _ in stub.Generate(decoder_pb2.GenerateRequest(raw=decoder_pb2.RawPrompt(text="one"))):
                pass
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=END_SECONDS)
    assert " vscan-toy " in stderr
    assert "/vscan.v1.Decoder/Generate" in stderr


async def test_a_collector_that_is_away_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with running(tmp_path, "otlp_endpoint=http://127.0.0.1:1") as (process, ready):
        await until(ready.exists)
        async with decoder_stub(ready.read_text()) as stub:
            async for _ in stub.Generate(decoder_pb2.GenerateRequest(raw=decoder_pb2.RawPrompt(text="one"))):
                pass
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=END_SECONDS)
    assert process.returncode == 0


async def serves(ready: Path) -> None:
    """Waits for an answer: by then it listens to signals."""
    await until(ready.exists)
    async with decoder_stub(await asyncio.to_thread(ready.read_text)) as stub:
        await stub.Describe(decoder_pb2.DescribeDecoderRequest(), wait_for_ready=True)


async def test_what_hangs_at_the_end_does_not_keep_the_process(tmp_path: Path) -> None:
    with running(tmp_path, "fault=hang") as (process, ready):
        await serves(ready)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 1
    assert "the process did not end within 0.5 s and is ended now" in stdout
    assert "wedged" in stderr or "in wait" in stderr  # where its threads were


@contextmanager
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that is full, and that nobody reads."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, bytes(4096))
    os.set_blocking(write_end, True)
    try:
        yield write_end
    finally:
        os.close(read_end)
        os.close(write_end)


async def test_it_serves_and_ends_though_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    with full_pipe() as pipe, running(tmp_path, stdout=pipe, stderr=pipe) as (process, ready):
        await until(ready.exists)
        async with decoder_stub(ready.read_text()) as stub:
            async for _ in stub.Generate(decoder_pb2.GenerateRequest(raw=decoder_pb2.RawPrompt(text="one"))):
                pass
        process.send_signal(signal.SIGTERM)
        process.wait(END_SECONDS)
    assert process.returncode == 0


async def test_where_a_hanging_process_is_does_not_keep_it_if_nobody_reads_it(tmp_path: Path) -> None:
    with full_pipe() as pipe, running(tmp_path, "fault=hang", stderr=pipe) as (process, ready):
        await serves(ready)
        process.send_signal(signal.SIGTERM)
        stdout, _ = process.communicate(timeout=END_SECONDS)
    assert process.returncode == 1
    assert "is ended now" in stdout


async def test_before_it_serves_a_signal_ends_it_at_once(tmp_path: Path) -> None:
    """Also as the first process of a container, for which the kernel ignores a signal that has no handler."""
    with running(tmp_path, "fault=slow") as (process, ready):
        await until(ready.exists)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=END_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
