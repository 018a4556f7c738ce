"""What the base install must import: the SDK stands on it, and has neither the OpenTelemetry SDK nor pydantic nor torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

EXTRAS = [
    "opentelemetry.sdk",
    "opentelemetry.exporter",
    "opentelemetry.instrumentation",
    "opentelemetry.semconv",
    "pydantic",
    "pydantic_settings",
    "torch",
    "numpy",
    "redis",
    "grpc_health",
    "grpc_reflection",
    "prometheus_client",
]
MODULES = [
    "vscan.errors",
    "vscan.rpc.address",
    "vscan.rpc.channel",
    "vscan.rpc.deadlines",
    "vscan.rpc.error_details",
    "vscan.rpc.tenant",
    "vscan.telemetry.context",
    "vscan.telemetry.logs",
    "vscan.telemetry.metrics",
    "vscan.telemetry.names",
    "vscan.telemetry.providers",
]
BLOCK = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if any(name == extra or name.startswith(extra + ".") for extra in {EXTRAS!r}):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_needs_the_base_install_only(module: str) -> None:
    result = run(f"import {module}")
    assert result.returncode == 0, result.stderr


def test_a_channel_opens_without_the_extra() -> None:
    code = """
import asyncio
from vscan.rpc.channel import open_channel
async def main():
    async with open_channel("127.0.0.1:1") as channel:
        print(channel.get_state())
asyncio.run(main())
"""
    result = run(code)
    assert "IDLE" in result.stdout, result.stderr


def test_the_block_blocks() -> None:
    assert run("import vscan.telemetry.setup").returncode != 0
