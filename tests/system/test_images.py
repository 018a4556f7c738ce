"""The images of the CPU variant without an engine: each instruction in a chroot, containers of all three beside a Redis.

Not run here: an engine's own build, the CUDA variant, an engine that acts on HEALTHCHECK.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

import vscan
from embedded_model.album import draw_album
from scripts.protos import ROOT
from tests.support.images.build import Builder, Image
from tests.support.images.container import Container
from tests.support.images.layers import BOUND, Layers, remove_what_was_left, run
from tests.support.images.machine import bare_debian, this_machine, torch_index
from tests.support.network_namespace import NetworkNamespace
from tests.support.redis_server import redis_server_program

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]

SERVICES = ("encoder", "decoder", "gateway")
HEALTH = {"encoder": "127.0.0.1:7073", "decoder": "127.0.0.1:7072", "gateway": "http://127.0.0.1:8000"}
ADDRESSES = {
    "encoder": {},
    "decoder": {"VSCAN_DECODER_ENCODER_ADDRESS": "127.0.0.1:7071"},
    "gateway": {"VSCAN_GATEWAY_DECODER_ADDRESS": "127.0.0.1:7070"},
}
MIB = 2**20


@pytest.fixture(scope="module")
def layers() -> Iterator[Layers]:
    with Layers() as folder:
        yield folder


@pytest.fixture(scope="module")
def images(layers: Layers) -> dict[str, Image]:
    """All, as `docker build` would make them."""
    builder = Builder(layers, bare_debian(layers), ROOT, this_machine())
    arguments = {"TORCH_INDEX_URL": torch_index()}
    made = {name: builder.build(ROOT / "docker" / f"{name}.Dockerfile", arguments) for name in SERVICES}
    # What is long is done once: the second build takes all layers of the first one.
    assert made["encoder"].chain == made["decoder"].chain
    return made


def _size_bytes(chain: Sequence[Path]) -> int:
    """Of layers' files; one that several names have is counted once."""
    return int(run(["du", "--summarize", "--total", "--bytes", *map(str, chain)]).splitlines()[-1].split()[0])


def test_the_clients_image_is_small(images: dict[str, Image]) -> None:
    """And begins with the services' layers, so that a host that has those gets its packages and the code alone."""
    _debian, *own = images["gateway"].chain
    shared = [layer for layer in own if layer in images["decoder"].chain]
    added = [layer for layer in own if layer not in shared]
    assert len(shared) == 2  # packages of Debian; the user
    print(f"gateway: {_size_bytes(images['gateway'].chain) / MIB:.0f} MiB, its own {_size_bytes(added) / MIB:.0f}")
    assert _size_bytes(added) < 150 * MIB
    assert _size_bytes(images["gateway"].chain) < _size_bytes(images["decoder"].chain) / 3


@pytest.fixture(scope="module")
def deployment(layers: Layers, images: dict[str, Image]) -> Iterator[SimpleNamespace]:
    """Redis and all three services on a network of their own, at the ports that they have by default; ready."""
    (picture,) = draw_album(5, pictures=1, questions=1)
    image = layers.folder / "picture.png"
    image.write_bytes(picture.png())
    image.chmod(0o644)
    with NetworkNamespace() as network:
        containers = {
            name: Container(
                layers,
                images[name],
                name,
                environment=ADDRESSES[name],
                run_in=network.command,
                shown={image: "/tmp/picture.png"},
            )
            for name in SERVICES
        }
        quiet = subprocess.DEVNULL
        redis = subprocess.Popen([*BOUND, *network.command, redis_server_program(), "--save", ""], stdout=quiet, stderr=quiet)
        try:
            for container in containers.values():
                container.start()
            for name, container in containers.items():
                container.wait_for(["vscan", "health", HEALTH[name]])
            yield SimpleNamespace(**containers, all=containers, question=picture.questions[0].text, network=network)
        finally:
            for container in containers.values():
                container.stop()
            redis.terminate()
            redis.wait()


def test_what_a_killed_run_left_is_removed_by_the_next_one(layers: Layers) -> None:
    program = (
        "import os, signal, subprocess\n"
        "from tests.support.images.layers import BOUND, Layers, run\n"
        "folder = Layers().folder\n"
        "run(['mount', '-t', 'tmpfs', 'tmpfs', str(folder)])\n"
        "left = subprocess.Popen([*BOUND, 'sleep', '60'])\n"  # which holds our end of the pipe open while it lives
        "while open(f'/proc/{left.pid}/comm').read() != 'sleep\\n': pass\n"
        "print(folder, left.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    folder, number = killed.stdout.split()
    assert Path(folder).is_mount()
    assert Path(folder) in remove_what_was_left()
    assert not Path(folder).exists()
    assert layers.folder.exists()  # of a process that lives
    assert not Path("/proc", number, "exe").exists()


def _python(container: Container, program: str, *arguments: str) -> str:
    done = container.execute(["python", "-c", program, *arguments])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_question_is_answered_end_to_end(deployment: SimpleNamespace) -> None:
    ask = ["vscan", "ask", "/tmp/picture.png", deployment.question, "--server", "127.0.0.1:7070", "--json"]
    answers = [json.loads(deployment.decoder.execute(ask).stdout) for _ in range(2)]
    assert answers[0]["text"] == answers[1]["text"] != ""
    assert [answer["images"][0]["place"] for answer in answers] == ["encoded", "memory"]
    assert _asked_over_http(deployment) == answers[0]["text"]
    dbsize = subprocess.run([*deployment.network.command, "redis-cli", "dbsize"], capture_output=True, text=True, check=True)
    assert int(dbsize.stdout) == 1


def _asked_over_http(deployment: SimpleNamespace) -> str:
    """The same question to the gateway, from its own container."""
    program = (
        "import base64, json, sys, urllib.request as http\n"
        "picture = base64.b64encode(open('/tmp/picture.png', 'rb').read()).decode()\n"
        "parts = [{'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,' + picture}},"
        " {'type': 'text', 'text': sys.argv[1]}]\n"
        "body = {'model': 'embedded', 'messages': [{'role': 'user', 'content': parts}]}\n"
        "url, kind = 'http://127.0.0.1:8000/v1/chat/completions', {'content-type': 'application/json'}\n"
        "print(json.load(http.urlopen(http.Request(url, json.dumps(body).encode(), kind)))['choices'][0]['message']['content'])"
    )
    return _python(deployment.gateway, program, deployment.question)


def test_the_clients_image_has_the_page_too(deployment: SimpleNamespace) -> None:
    script = (
        "vscan page --server 127.0.0.1:7070 >/tmp/page.log 2>&1 & page=$!\n"
        "until vscan health http://127.0.0.1:7080/ 2>/dev/null; do kill -0 $page || { cat /tmp/page.log; exit 1; }; done\n"
        "kill $page; wait $page"
    )
    done = deployment.gateway.execute(["sh", "-c", script])
    assert (done.returncode, done.stdout) == (0, "serving\n"), done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_the_health_check_of_the_image_says_that_it_lives(deployment: SimpleNamespace, name: str) -> None:
    assert deployment.all[name].is_healthy()


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_an_ordinary_user_without_any_right(deployment: SimpleNamespace, name: str) -> None:
    status = _python(deployment.all[name], "print(open('/proc/1/status').read())")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Name"] == "tini"
    assert fields["Uid"].split() == fields["Gid"].split() == ["10001"] * 4
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", SERVICES)
def test_its_root_is_read_only_and_it_left_nothing_but_in_tmp(deployment: SimpleNamespace, name: str) -> None:
    done = deployment.all[name].execute(["sh", "-c", "touch /app/x || touch /venv/x || touch /x"])
    assert done.returncode
    assert "Read-only file system" in done.stderr


@pytest.mark.parametrize(("name", "least"), [("decoder", 5000), ("gateway", 1000)])  # the encoder has the decoder's files
def test_every_module_is_compiled_already_and_never_compared_with_its_source(
    deployment: SimpleNamespace, name: str, least: int
) -> None:
    program = (
        "import asyncio, json, pathlib, ssl, sys\n"
        "from importlib.util import cache_from_source\n"
        "ours = [cache_from_source(p) for top in ('/app', '/venv/lib') for p in pathlib.Path(top).rglob('*.py')]\n"
        "header = lambda p: open(p, 'rb').read(8)[4:] if pathlib.Path(p).exists() else b''\n"
        "python = [getattr(m, '__cached__', None) for m in list(sys.modules.values())]\n"
        "missing = [p for p in ours if header(p) != b'\\1\\0\\0\\0']\n"
        "print(len(ours), *missing, *[p for p in python if p and not pathlib.Path(p).exists()])"
    )
    count, *missing = _python(deployment.all[name], program).split()
    assert int(count) > least
    assert [path for path in missing if "/tests/" not in path and "/py312_intrinsics" not in path] == []


@pytest.mark.parametrize("name", ["decoder", "gateway"])
def test_nothing_that_builds_is_left_in_it(deployment: SimpleNamespace, name: str) -> None:
    program = (
        "import importlib.util, os, shutil\n"
        "print([m for m in ('pip', 'wheel', 'ensurepip') if importlib.util.find_spec(m)],"
        " [t for t in ('gcc', 'cc', 'make', 'pip', 'pip3') if shutil.which(t)],"
        " [d for d in ('/pip', '/src', '/root/.cache', '/tmp/.cache') if os.path.exists(d)],"
        " os.listdir('/var/lib/apt/lists'))"
    )
    assert _python(deployment.all[name], program) == "[] [] [] []"


@pytest.mark.parametrize("name", ["decoder", "gateway"])
def test_it_has_the_versions_that_are_pinned(deployment: SimpleNamespace, name: str) -> None:
    program = "from importlib import metadata as m; print(*[f'{d.name}=={d.version}' for d in m.distributions()], sep='\\n')"
    lines = _python(deployment.all[name], program).splitlines()
    installed = dict(line.lower().replace("_", "-").split("==") for line in lines)
    assert ("torch" in installed) == (name == "decoder")
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    assert installed.pop("vscan-serve") == vscan.__version__
    # A build of torch for CPUs says so in its version.
    wrong = {one: version for one, version in installed.items() if pinned.get(one) not in (version, version.partition("+")[0])}
    assert wrong == {}


@pytest.mark.parametrize("name", SERVICES[::-1])  # the last test: what it ends stays ended
def test_told_to_end_it_ends_in_order(deployment: SimpleNamespace, name: str) -> None:
    assert deployment.all[name].stop() == 0
