"""`vscan bench` against a whole deployment of the embedded model. The test that ends the decoder is the last one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from embedded_model import checkpoint_dir
from studies.load.album import Album
from studies.load.comparison import Case, compare
from studies.load.configurations import STEPS, keep_to, local_services
from studies.load.counters import counted, read_counters
from studies.load.driver import drive
from studies.load.figures import Targets
from studies.load.hardware import Cores, busy_s
from studies.load.report import report
from studies.load.sides import Side
from studies.load.targets.deployment import Deployment
from studies.load.targets.transformers_peer import TransformersPeer
from studies.load.workload import Workload
from tests.support.client_cli import in_a_process, vscan
from tests.support.until import until
from vscan_client.cli.local_stack import LocalStack
from vscan_client.cli.questions import QuestionOptions

SMALL = ("--image-side", 32, "--answer-tokens", 4)
ONE_THREAD = {"torch_threads": "1"}


@dataclass(frozen=True)
class Served:
    stack: LocalStack
    metrics: list[str]

    @property
    def options(self) -> list[str]:
        return ["--server", self.stack.addresses.decoder, *(part for page in self.metrics for part in ("--metrics", page))]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with local_services(STEPS[-1], model=None, further={"encoder": ONE_THREAD, "decoder": ONE_THREAD}) as (stack, metrics):
        yield Served(stack, metrics)


def only_configuration(file: Path) -> dict[str, Any]:
    report = json.loads(file.read_text())
    assert report["schema"] == "vscan.load/1"
    assert {"processor", "cores", "python", "torch", "transformers", "vscan-serve"} <= report["environment"].keys()
    ((one,),) = (case["configurations"] for case in report["cases"])
    return dict(one)


@pytest.mark.parametrize("loop", [["--clients", 3], ["--rate", 100]], ids=["closed", "open"])
def test_a_run_counts_what_the_server_counts(served: Served, tmp_path: Path, loop: list[Any]) -> None:
    before = read_counters(served.metrics)
    asked = ("--budget", "24", "--budget", "12=2", "--images", 4, "--images-per-question", 2, "--requests", 18, "--warm-up", 2)
    written = ("--raw", "--json", tmp_path / "load.json")
    ran = vscan("bench", *served.options, *loop, *SMALL, *asked, *written)
    one = only_configuration(tmp_path / "load.json")
    first, *warned = ran.err.splitlines()
    assert (ran.code, first) == (0, "2 of 4 images: round 1 of 1"), ran.err
    # A busy machine may send late; then it is said, and nothing else is.
    assert ["fell behind" in line for line in warned] == [True] * one["generator_fell_behind"], ran.err
    assert (one["requests"], one["answered"], one["failures"]) == (18, 18, {})
    asyncio.run(until(lambda: counted(before, read_counters(served.metrics))["answers"] == 20, what="the server's count"))
    assert one["counters"]["decoder_steps"] > 0
    assert one["tokens"]["completion"] == 18 * 4
    assert one["tokens"]["visual_before_mean"] == 2 * 144
    assert sum(one["places"].values()) == 36
    assert one["hit_rates"].keys() <= {"memory", "redis", "encoded", "shared", "encoder_memory"}
    assert (one["generator_late_ms"] is None) == (loop[0] == "--clients")
    assert all(one[times]["p50"] <= one[times]["max"] for times in ("ttft_ms", "tpot_ms", "gap_ms", "total_ms"))
    (records,) = one["records"]
    assert [record["number"] for record in records] == list(range(18))
    assert all(record["end_s"] >= record["content_s"][0] >= record["sent_s"] for record in records)
    # Each style of the mix kept what it asked for, of both images.
    assert {(record["style"], record["visual_after"]) for record in records} == {(0, 48), (1, 24)}
    assert {each["style"]: each["requests"] for each in one["by_style"]} == Counter(record["style"] for record in records)


async def test_a_comparison_has_each_configuration_as_its_requests_ask(served: Served) -> None:
    album = Album(range(3), 32)
    cores = Cores.of_this_machine()
    keep_to(served.stack, cores)
    for name, pid in served.stack.pids.items():
        wanted = set(cores.decoder if name == "decoder" else cores.rest)
        assert all(os.sched_getaffinity(thread.id) == wanted for thread in psutil.Process(pid).threads())
    asked, server = QuestionOptions(budget="24", keep="8"), {"server": served.stack.addresses.decoder}
    targets = [Deployment(server, album, [step.ask_options(asked)]) for step in STEPS[:3]]
    sides = [
        Side(step.name, step.label, target, served.metrics, served.stack.pids)
        for step, target in zip(STEPS, targets, strict=False)
    ]
    case = Case("load", "one of 3 images", Workload(requests=3, images=3, answer_tokens=2), album)
    try:
        compared = await compare({"load": sides}, [case], rounds=2, clients=2)
    finally:
        for target in targets:
            await target.close()
    made = report(compared, sides, targets=Targets(), options={})
    ones = {one["name"]: one for one in made["cases"][0]["configurations"]}
    tokens = {name: (one["tokens"]["visual_after_mean"], one["tokens"]["visual_average_mean"]) for name, one in ones.items()}
    assert tokens == {"no_reduction": (144, 144), "stage_1": (24, 24), "both_stages": (24, 16)}
    assert all(one["answered"] == 6 for one in ones.values())
    assert ones["both_stages"]["busy_s"].keys() == {"load", "encoder", "decoder", "redis"}
    assert len(made["cases"][0]["gains"]) == 3


async def test_transformers_is_asked_the_same_prompt(served: Served) -> None:
    album = Album(range(2), 32)
    asks = [
        replace(ask, answer_tokens=length) for ask, length in zip(Workload(requests=3, images=2).asks(), (5, 2, 5), strict=True)
    ]
    ours = Deployment({"server": served.stack.addresses.decoder}, album, [STEPS[0].ask_options(QuestionOptions())])
    peer = await TransformersPeer.start(
        checkpoint_dir(), cores=(), threads=[1], batch=2, device="cpu", most_tokens=8, timeout_s=120
    )
    try:
        served_records = await drive(ours, asks, clients=2)
        records = await drive(peer.about(album), asks, clients=3)
        assert busy_s(peer.process.pid)
    finally:
        await ours.close()
        await peer.close()
    assert peer.process.returncode == 0
    assert [record.code for record in records] == ["OK"] * 3
    assert [record.prompt_tokens for record in records] == [record.prompt_tokens for record in served_records]
    assert [(record.completion_tokens, len(record.content_s)) for record in records] == [(5, 5), (2, 2), (5, 5)]


def test_a_decoder_that_dies_ends_the_run_with_its_failures_counted(served: Served, tmp_path: Path) -> None:
    begun = read_counters(served.metrics)["answers"]
    arguments = [*served.options, "--clients", 4, *SMALL, "--requests", 1000, "--json", tmp_path / "load.json"]
    command = in_a_process("bench", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            asyncio.run(until(lambda: read_counters(served.metrics)["answers"] > begun + 20, what="some answers"))
            os.kill(served.stack.pids["decoder"], signal.SIGKILL)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 1, err
    one = only_configuration(tmp_path / "load.json")
    assert one["failures"].keys() == {"UNAVAILABLE"}
    assert one["answered"] > 0
    assert one["answered"] + one["failures"]["UNAVAILABLE"] == one["requests"] == 1000
    assert f"{one['failures']['UNAVAILABLE']} UNAVAILABLE of 1000 requests" in err
    assert "good requests/s" in out
