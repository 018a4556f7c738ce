"""`vscan warm` against real gRPC servers: a scripted one, and a real encoder with a real Redis."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.asking import OTHER_PICTURE, PICTURE
from tests.support.client_cli import in_a_process, vscan
from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.encoder import running_encoder
from tests.support.redis_server import RedisServer
from vscan.errors import InternalError, InvalidArgument, ResourceExhausted
from vscan.specs import ReductionSpec, TokensPerTile
from vscan.telemetry import names
from vscan.telemetry.providers import Telemetry
from vscan.wire import reduction_from_proto
from vscan_client import Image, Video

MP4 = b"\x00\x00\x00\x20ftypisom" + bytes(2000)
NOTHING = "0 encoded, 0 were cached before, 0 were duplicates, 0 failed"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures in two folders, a copy of one of them, a clip and a text."""
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    for number in range(6):
        (folder / ("deeper" if number % 2 else ".") / f"{number}.png").write_bytes(str(number).encode() * 5000)
    (folder / "copy.png").write_bytes(b"0" * 5000)
    (folder / "clip.mp4").write_bytes(MP4)
    (folder / "notes.txt").write_text("text")
    return folder


def records(out: str) -> dict[str, dict[str, Any]]:
    told = [json.loads(line) for line in out.splitlines()]
    assert len({each["file"] for each in told}) == len(told)
    return {Path(each["file"]).name: each for each in told}


def test_every_file_is_cached_once(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    ran = vscan("warm", pictures, "--encoder", address)
    assert (ran.code, ran.out) == (0, "")
    assert ran.one_line == "7 encoded, 0 were cached before, 1 were duplicates, 0 failed; 1 other files left alone"
    assert len(deployment.encodes) == 7
    assert all(request.ByteSize() > 2000 for request in deployment.encodes)
    ran = vscan("warm", pictures, "--encoder", address)
    assert ran.one_line == "0 encoded, 7 were cached before, 1 were duplicates, 0 failed; 1 other files left alone"
    assert len(deployment.encodes) == 7


def test_a_line_of_json_for_each(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    vscan("encode", pictures / "2.png", "--encoder", address)
    deployment.encode_fails_with = [InternalError("internal error")]
    ran = vscan("warm", pictures, "--json", "--concurrency", 1, "--encoder", address)
    told = records(ran.out)
    outcomes = [each["outcome"] for each in told.values()]
    assert sorted(outcomes) == ["cached", "duplicate", *["encoded"] * 5, "failed"]
    assert (told["2.png"]["outcome"], told["2.png"]["place"]) == ("cached", "memory")
    assert told["2.png"]["sha256"] == Image.from_path(pictures / "2.png").digest
    (failed,) = [each for each in told.values() if each["outcome"] == "failed"]
    assert failed["error"] == {"name": "InternalError", "message": "internal error"}
    assert told["5.png"]["image"]["tokens_after"] == 24
    assert ran.code == 1
    assert ran.err.splitlines()[0] == f"{failed['file']}: internal error"


def test_options_reach_the_encoder(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    gif = pictures / "loop.gif"
    gif.write_bytes(b"GIF89a")
    options = ["--budget", "24", "--frames", "4", "--concurrency", "1", "--encoder", address]
    arguments = [pictures / "clip.mp4", pictures / "0.png", "--video", gif]
    assert vscan("warm", *arguments, *options).code == 0
    reduction = ReductionSpec(budget=TokensPerTile(24))
    sent = deployment.encodes[-3:]
    assert [reduction_from_proto(request.reduction) for request in sent] == [reduction] * 3
    videos = [request.video for request in sent if request.HasField("video")]
    assert [(video.data[:4], video.sampling.frames) for video in videos] == [(MP4[:4], 4), (b"GIF8", 4)]
    assert vscan("warm", *arguments, *options).err.startswith("0 encoded, 3 were cached")
    of_videos = [request for request in deployment.lookups if request.HasField("video_sampling")]
    assert [list(request.sha256) for request in of_videos[-1:]] == [
        [Video.from_path(pictures / "clip.mp4").sha256, Video.from_path(gif).sha256]
    ]


def test_lookups_are_as_large_as_the_encoder_takes_them(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    deployment.max_lookup_digests = 2
    assert vscan("warm", pictures, "--encoder", address).code == 0
    assert max(len(request.sha256) for request in deployment.lookups) == 2
    assert sum(len(request.sha256) for request in deployment.lookups) == 7
    assert len(deployment.encodes) == 7


def test_a_full_queue_is_waited_for(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    deployment.encode_fails_with = [ResourceExhausted("full", retry_delay_ms=5)] * 8
    assert vscan("warm", pictures, "--encoder", address).code == 0


def test_files_are_encoded_together_up_to_a_bound(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    deployment.hold_before.clear()
    command = in_a_process("warm", pictures, "--encoder", address, "--concurrency", 3)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        for _ in range(3):
            assert deployment.entered.acquire(timeout=30)
        assert len(deployment.encodes) == 3
        deployment.hold_before.set()
        assert process.wait(timeout=60) == 0
    assert len(deployment.encodes) == 7


def test_ctrl_c_ends_it_with_a_summary(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    deployment.hold_before.clear()
    command = in_a_process("warm", pictures, "--encoder", address, "--concurrency", 1)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert deployment.entered.acquire(timeout=30)
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("0 encoded, 0 were cached before")
    assert "Traceback" not in err


def test_what_cannot_be_read_is_a_line_and_stops_nothing(address: str, pictures: Path, tmp_path: Path) -> None:
    (pictures / "dangling.png").symlink_to(tmp_path / "nowhere")
    (pictures / "up").symlink_to(pictures)
    os.mkfifo(tmp_path / "pipe")
    ran = vscan("warm", pictures, tmp_path / "gone", tmp_path / "pipe", "--encoder", address)
    *lines, summary = ran.err.splitlines()
    assert sorted(lines) == sorted(
        [
            f"{pictures / 'dangling.png'}: No such file or directory",
            f"{tmp_path / 'gone'}: No such file or directory",
            f"{tmp_path / 'pipe'}: not a file",
        ]
    )
    assert (ran.code, summary.startswith("7 encoded")) == (1, True)
    assert "3 failed" in summary


def test_a_lookup_that_fails_fails_its_files_alone(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    deployment.max_lookup_digests = 4
    deployment.lookup_fails_with = [InternalError("internal error")]
    ran = vscan("warm", pictures, "--encoder", address)
    assert ran.code == 1
    assert len(deployment.encodes) + sum(line.endswith(": internal error") for line in ran.err.splitlines()) == 7


def test_a_reduction_that_no_file_can_have_ends_the_run(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    deployment.lookup_fails_with = [InvalidArgument("reduction.budget", "577 tokens", limit="576")]
    ran = vscan("warm", pictures, "--encoder", address)
    assert (ran.code, deployment.encodes) == (2, [])
    assert ran.err.splitlines()[-1] == "vscan: reduction.budget: 577 tokens, limit 576"


def test_nothing_to_do(tmp_path: Path) -> None:
    ran = vscan("warm", tmp_path, "--encoder", "127.0.0.1:1")
    assert (ran.code, ran.out, ran.one_line) == (0, "", NOTHING)
    assert vscan("warm").one_line == "vscan: arguments: a folder, an image or a video is needed: vscan warm DIR..."


def test_an_encoder_that_is_not_there_ends_the_run(deployment: ScriptedDeployment, address: str, pictures: Path) -> None:
    with serving(ScriptedDeployment()) as gone:
        pass
    ran = vscan("warm", pictures, "--encoder", gone, "--timeout", "1")
    assert ran.code == 3
    assert [line.partition(":")[0] for line in ran.err.splitlines()] == [NOTHING + "; 1 other files left alone", "vscan"]
    # One of two is enough.
    assert vscan("warm", pictures, "--encoder", f"{gone},{address}").code == 0


async def test_a_real_encoder_encodes_each_picture_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    (tmp_path / "b.png").write_bytes(OTHER_PICTURE)
    (tmp_path / "broken.png").write_bytes(PICTURE[:200])
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def spans(name: str) -> int:
        return sum(span.name == name for span in exporter.get_finished_spans())

    with RedisServer() as redis:
        for encoded, cached in ((2, 0), (0, 2)):
            # A new encoder the second time: what it finds is in Redis.
            settings: dict[str, Any] = {"redis_url": redis.url, "redis_timeout_ms": 30_000}
            async with running_encoder(Telemetry(tracer_provider=provider), **settings) as encoder:
                ran = await asyncio.to_thread(vscan, "warm", tmp_path, "--json", "--encoder", encoder.address)
            told = records(ran.out)
            assert ran.code == 1
            assert ran.err.splitlines()[-1] == f"{encoded} encoded, {cached} were cached before, 0 were duplicates, 2 failed"
            assert {name: told[name]["error"]["name"] for name in ("broken.png", "c.jpg")} == {
                "broken.png": "InvalidArgument",
                "c.jpg": "InvalidArgument",
            }
            assert "not an image of a known format" in told["c.jpg"]["error"]["message"]
            assert spans(names.SPAN_VIT) == 2
    assert (told["a.png"]["place"], spans(names.SPAN_ENCODE)) == ("redis", 6)
