"""The SDK and the command line work with the base install alone: no torch, no OpenTelemetry SDK."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.benchmarks import DATA
from tests.support.client_decoder import ScriptedDeployment, serving

# Of the extras. Importing one of them fails in the child, as it would where it is not installed.
EXTRAS = [
    *(
        "torch",
        "numpy",
        "pydantic",
        "pydantic_settings",
        "transformers",
        "safetensors",
        "tokenizers",
        "PIL",
        "av",
        "jinja2",
        "redis",
    ),
    "openpyxl",
    *("prometheus_client", "grpc_health", "grpc_reflection"),
    *("opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.instrumentation"),
]
PRELUDE = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
"""
# Recent releases of typer need pydantic to run a command, so it is there with the base install.
WITH_PYDANTIC = "del sys.modules['pydantic']\n"

ASK = """
from vscan_client import Client
from opentelemetry import trace
parent = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, trace.TraceFlags(1))
with Client(server=sys.argv[1]) as client, trace.use_span(trace.NonRecordingSpan(parent)):
    answer = client.ask(b"image", "what is it?")
print(answer.text)
"""

CALL = "from vscan_client.cli.main import main; main(sys.argv[1:])"

IMPORT_ALL = """
import vscan_client.cli.main
print(sorted({"torch", "numpy", "pydantic", "transformers"} & sys.modules.keys()))
"""


def start(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def run(program: str, *arguments: str) -> str:
    done = start(program, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_needs_no_extra_and_its_trace_context_goes_along() -> None:
    deployment = ScriptedDeployment()
    with serving(deployment) as address:
        assert run(PRELUDE + ASK, address) == "1 image(s): what is it?\n"
    # Without an SDK there are no spans of its own, so the caller's span is the parent that the server sees.
    assert deployment.metadata[0]["traceparent"] == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_importing_the_sdk_loads_nothing_heavy_where_everything_is_installed() -> None:
    assert run("import sys\n" + IMPORT_ALL) == "[]\n"


def test_the_command_line_needs_no_extra(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    with serving(ScriptedDeployment()) as address:
        told = run(PRELUDE + WITH_PYDANTIC + CALL, "ask", str(tmp_path / "a.png"), "what is it?", "--server", address)
    assert told == "1 image(s): what is it?\n"


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["up"], "serve"),
        (["serve", "encoder"], "serve"),
        (["serve", "decoder", "--model", "x"], "serve"),
        (["ask", "IMAGE", "what?", "--trace-console"], "otel"),
        (["show", "IMAGE", "what?"], "show"),
        (["eval", "mmbench", "--questions", f"{DATA}/mmbench/mmbench_dev.tsv", "--images", ".", "--export", "x.xlsx"], "eval"),
        (["page"], "page"),
        (["up", "--page"], "page"),
    ],
)
def test_a_command_that_needs_an_extra_says_how_to_install_it(tmp_path: Path, arguments: list[str], extra: str) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    arguments = [str(tmp_path / "a.png") if argument == "IMAGE" else argument for argument in arguments]
    done = start(PRELUDE + WITH_PYDANTIC + CALL, *arguments)
    (line,) = done.stderr.splitlines()
    assert f"pip install 'vscan-serve[{extra}]'" in line
    assert done.returncode == 2


def test_a_benchmark_needs_no_extra(tmp_path: Path) -> None:
    arguments = [
        "eval",
        "gqa",
        "--questions",
        str(DATA / "gqa/testdev_balanced_questions.json"),
        "--out",
        str(tmp_path / "out.json"),
    ]
    with serving(ScriptedDeployment()) as address:
        told = run(PRELUDE + WITH_PYDANTIC + CALL, *arguments, "--images", str(DATA / "gqa/images"), "--server", address)
    assert told.startswith("GQA: accuracy 0.00 % (3 questions)\n")
