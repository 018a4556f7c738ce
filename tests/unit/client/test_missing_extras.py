"""Every command that needs more than the base install says so in one way: a line with the pip command, and exit code 2."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# The extras' own packages, as if they were not installed.
MISSING = [
    *("torch", "transformers", "numpy", "PIL", "matplotlib", "redis", "pydantic_settings"),
    *("grpc_health", "httpx2", "prometheus_client", "opentelemetry.sdk"),
]
# What each command is given, and the extras that it asks for.
COMMANDS = {
    "study cls-attention": "serve",
    "study convergence": "serve",
    "serve encoder": "serve",
    "serve decoder": "serve",
    "serve gateway": "gateway",
    "up": "serve",
    "up --gateway": "gateway",
    "up --page": "page",
    "tune": "serve,plot",
    "health 127.0.0.1:1": "serve",
    "bench --plot a.png --server 127.0.0.1:1": "plot",
    "bench --peer-url http://127.0.0.1:1 --peer-model m --server 127.0.0.1:1": "bench",
    f"ask sha256:{'0' * 64} what --trace-console --server 127.0.0.1:1": "otel",
}
PROGRAM = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
from vscan_client.cli.main import main
ended = []
for command in json.loads(sys.argv[2]):
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(command.split())
        except SystemExit as exit:
            ended.append([exit.code, said.getvalue()])
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def ended() -> dict[str, tuple[int, str]]:
    """How each command ended, in one process for all."""
    given = [json.dumps(MISSING), json.dumps(list(COMMANDS))]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *given], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return {command: (code, said) for command, (code, said) in zip(COMMANDS, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize(("command", "extra"), COMMANDS.items())
def test_a_missing_extra_is_one_line_and_code_2(ended: dict[str, tuple[int, str]], command: str, extra: str) -> None:
    code, said = ended[command]
    assert (code, len(said.splitlines())) == (2, 1), said
    assert f"pip install 'vscan-serve[{extra}]'" in said
