"""The SDK and the command line work with the base install alone: no torch, no OpenTelemetry SDK."""

import json
import subprocess
import sys
from pathlib import Path

from tests.support.client_decoder import ScriptedDeployment, serving

# Distributions of the extras. Importing one of them fails in the child, as it would where it is not installed.
EXTRAS = [
    *("torch", "numpy", "pydantic", "pydantic_settings", "transformers", "safetensors", "tokenizers", "PIL", "jinja2", "redis"),
    *("prometheus_client", "grpc_health", "grpc_reflection"),
    *("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation"),
]

PRELUDE = f"""
import importlib.abc, json, sys
BLOCKED = set({EXTRAS!r})
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in BLOCKED):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""

ASK = """
from vscan_client import Client
from opentelemetry import trace
parent = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, trace.TraceFlags(1))
with Client(server=sys.argv[1]) as client, trace.use_span(trace.NonRecordingSpan(parent)):
    answer = client.ask(b"image", "what is it?")
loaded = sorted(name for name in sys.modules if name.split(".")[0] in {"torch", "numpy", "pydantic"})
print(json.dumps({"text": answer.text, "loaded": loaded}))
"""

IMPORT_ALL = """
import vscan_client.cli.main
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] in {"torch", "numpy", "pydantic"})))
"""


def run(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_needs_no_extra_and_its_trace_context_goes_along() -> None:
    deployment = ScriptedDeployment()
    with serving(deployment) as address:
        told = json.loads(run(PRELUDE + ASK, address))
    assert told == {"text": "1 image(s): what is it?", "loaded": []}
    # Without an SDK there are no spans of its own, so the caller's span is the parent that the server sees.
    assert deployment.metadata[0]["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_importing_the_sdk_loads_nothing_heavy_where_everything_is_installed() -> None:
    assert json.loads(run("import json, sys\n" + IMPORT_ALL)) == []


def test_the_command_line_needs_no_extra(tmp_path: Path) -> None:
    assert json.loads(run(PRELUDE + IMPORT_ALL)) == []
    (tmp_path / "a.png").write_bytes(b"image")
    with serving(ScriptedDeployment()) as address:
        # Recent releases of typer need pydantic to run a command, so it is there with the base install.
        call = "BLOCKED.remove('pydantic')\n"
        call += f"sys.argv = ['vscan', 'ask', {str(tmp_path / 'a.png')!r}, 'what is it?', '--server', {address!r}]\n"
        told = run(PRELUDE + call + "from vscan_client.cli.main import main\nsys.exit(main())")
    assert told == "1 image(s): what is it?\n"
