"""Those of the faults that need root: full disks, moved clocks; and a cable that is pulled."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from tests.faults.cable import run_pulled_cable
from tests.faults.injections import Fault, all_faults
from tests.faults.run import run_faults
from tests.support.toy_services import decoder_stub, failure
from vscan.v1 import decoder_pb2

pytestmark = pytest.mark.system

CHOSEN = {("disk_full", "redis"), ("disk_full", "decoder"), ("clock_forward", "decoder"), ("clock_back", "redis")}


async def test_whatever_breaks_every_request_ends_once() -> None:
    chosen = [replace(fault, moves_clocks=True) for fault in all_faults() if _is_chosen(fault)]  # one deployment for all
    assert [fault.obstacle for fault in chosen] == [""] * len(CHOSEN)
    rows = await run_faults(chosen, 2.0, lambda row: None)
    assert [problem for row in rows for problem in row.problems()] == []


async def test_a_cable_that_is_pulled_for_a_while_loses_no_request(tmp_path: Path) -> None:
    row = await run_pulled_cable(tmp_path, 3.0)
    assert list(row.problems()) == []


def test_a_server_that_freezes_is_found_by_its_silence(tmp_path: Path) -> None:
    """Within half a minute; the call itself would wait twice as long."""
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "tests.support.toy_service_main", f"ready_file={ready}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            while not ready.is_file():
                time.sleep(0.02)
            asyncio.run(_ask_frozen(server, ready.read_text().strip()))
        finally:
            server.kill()


async def _ask_frozen(server: subprocess.Popen[bytes], address: str) -> None:
    async with decoder_stub(address) as stub:
        await stub.Describe(decoder_pb2.DescribeDecoderRequest())
        server.send_signal(signal.SIGSTOP)
        error = await failure(stub.Describe(decoder_pb2.DescribeDecoderRequest(), timeout=60))
    assert error.code() is grpc.StatusCode.UNAVAILABLE


def _is_chosen(fault: Fault) -> bool:
    return (fault.name, fault.component) in CHOSEN
