"""The base install is enough to put load on a server; what more is asked for names the extra it needs, in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.client_cli import vscan
from tests.support.client_decoder import ScriptedDeployment, serving

# Importing one of these fails in the child, as it would where it is not installed.
EXTRAS = (
    "torch",
    "numpy",
    "transformers",
    "safetensors",
    "PIL",
    "redis",
    "prometheus_client",
    "grpc_health",
    "httpx2",
    "matplotlib",
)
CALL = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
from vscan_client.cli.main import main
main(sys.argv[1:])
"""


def test_load_on_a_server_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("at_s,image,question\n0,0,what is it?\n0.001,1,red\n")
    with serving(ScriptedDeployment()) as address:
        options = ["--server", address, "--image-side", "16", "--warm-up", "0", "--trace", str(tmp_path / "trace.csv")]
        options += ["--answer-tokens", "model", "--json", str(tmp_path / "load.json")]
        command = [sys.executable, "-c", CALL, "bench", *options]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "trace.csv: round 1 of 1" in ran.stderr
    (case,) = json.loads((tmp_path / "load.json").read_text())["cases"]
    assert case["workload"] == {"trace": "trace.csv", "requests": 2, "images": 2}
    assert case["configurations"][0]["answered"] == 2
    assert case["configurations"][0]["generator_late_ms"] is not None


def test_a_server_that_is_away_is_said_before_any_load() -> None:
    ran = vscan("bench", "--server", "127.0.0.1:1", "--image-side", 16, "--timeout", 5)
    assert ran.one_line.startswith("vscan: no server was reached")
    assert ran.code == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compare"], "pip install 'vscan-serve[serve]'"),
        (["--up", "--model", "random"], "pip install 'vscan-serve[serve]'"),
        (["--peer", "transformers", "--only-peers"], "pip install 'vscan-serve[serve]'"),
        (["--peer", "transformers"], "--model: missing beside --peer and --server, limit the checkpoint that the server has"),
        (["--model", "random"], "--model: given, and nothing here has it, limit only with what is started here"),
        (["-s", "decoder.max_running=1"], "-s: given, and nothing here has it, limit only with what is started here"),
        (["--peer-model", "m"], "--peer-model: given, and nothing here has it, limit only with --peer-url"),
        (["--up", "--metrics", "http://x/metrics"], "--metrics: given, and nothing here has it, limit only with --server"),
        (["--trace", "t.csv", "--requests", "5"], "--requests: given, and nothing here has it, limit only without --trace"),
        (["--trace", "t.csv", "--zipf", "0"], "--zipf: given, and nothing here has it, limit only without --trace"),
        (["--up", "--server", "x:1"], "--server: given, and nothing here has it, limit only with --server"),
        (["--rounds", "3"], "--rounds: given, and nothing here has it, limit only with --compare"),
        (["--compare", "--warm-up", "3"], "--warm-up: given, and nothing here has it, limit only without --compare"),
        (["--compare", "--cases", "one-image", "--many", "3"], "--many: given, and nothing here has it"),
        (["--compare", "--cases", "many-images", "--zipf", "2"], "--zipf: given, and nothing here has it"),
        (["--new-images", "--images", "9"], "--images: given, and nothing here has it, limit only with a folder"),
        (["--images", "here", "--image-side", "64"], "--image-side: given, and nothing here has it"),
        (["--questions", "q.txt", "--question-words", "3"], "--question-words: given, and nothing here has it"),
        (["--max-late-ms", "5"], "--max-late-ms: given, and nothing here has it, limit only with an open loop"),
        (["--raw"], "--raw: given, and nothing here has it, limit only with --json"),
        (["--peer-batch", "2"], "--peer-batch: given, and nothing here has it, limit only with --peer transformers"),
        (["--only-peers", "--peer-url", "http://x/v1", "--keep", "9"], "--keep: given, and nothing here has it"),
        (["--from", "r.json"], "--plot: missing beside --from"),
        (["--from", "r.json", "--plot", "p.png", "--seed", "1"], "--seed: beside --from, which measures nothing"),
        (["--tls-cert", "own.pem"], "--tls-key: missing beside --tls-cert"),
        (["--ttft-ms", "0"], "--ttft-ms: 0, limit over 0"),
        (["--tpot-ms", "nan"], "--tpot-ms: nan, limit over 0"),
        (["--images", "2000000"], "--images: 2000000, limit 0 to 1,000,000"),
        (["--json", "/dev"], "--json: /dev: Is a directory"),
        (["--plot", "load.png"], "pip install 'vscan-serve[plot]'"),
        (["--peer-url", "http://127.0.0.1:1/v1", "--peer-model", "m"], "pip install 'vscan-serve[bench]'"),
        (["--metrics", "http://127.0.0.1:1/metrics"], "pip install 'vscan-serve[bench]'"),
        (["--rate", "1", "--clients", "2"], "--clients: beside --rate, limit one of the two"),
        (["--compare", "--up"], "--up: more than one of --up, --compare and --only-peers, limit one of them"),
        (["--peer", "vllm"], "--peer: 'vllm', limit transformers"),
        (["--peer-url", "localhost"], "--peer-url: 'localhost', limit an http:// or https:// address"),
        (["--compare", "--cases", "no-image"], "--cases: 'no-image', limit one-image,many-images"),
        (["--up", "-s", "redis.x=1"], "-s: 'redis.x=1' is not of the form SERVICE.NAME=VALUE"),
        (["--up", "-s", "decoder.redis-url=redis://:secret@x"], "-s: decoder.redis_url is chosen by the run itself"),
        (["--only-peers"], "--only-peers: no peer, limit --peer or --peer-url beside it"),
        (["--trace", "nothing.jsonl"], "nothing.jsonl: cannot be read"),
        (["--images", "nothing"], "--images: nothing is not a folder, limit a folder, or how many to make"),
        (["--json", "nowhere/load.json"], "--json: nowhere is not a folder"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_before_anything_runs(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    ran = vscan("bench", *arguments)
    assert says in ran.one_line
    assert (ran.code, ran.out) == (2, "")
