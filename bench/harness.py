"""What every benchmark shares: where it ran, what it checked, what it measured, and how it exits.

A report is `{"environment": {…}, "checks": [{"name", "value", "goal", "op", "met"}], "raw": […]}`.
Exit codes: 0 all checks met, 1 one is not, 2 the benchmark did not run.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

_OPERATORS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}
_VERSIONS_OF = ("vscan-serve", "torch", "transformers", "grpcio", "protobuf", "redis", "opentelemetry-sdk")


@dataclass(frozen=True, slots=True)
class Check:
    """A measured value against its goal: met if `value op goal`."""

    name: str
    value: float
    op: str
    goal: float

    @property
    def met(self) -> bool:
        """Whether the goal is reached."""
        return _OPERATORS[self.op](self.value, self.goal)

    def to_json(self) -> dict[str, Any]:
        """The report's form."""
        return {**asdict(self), "met": self.met}


@dataclass(slots=True)
class Report:
    """What a benchmark found. `summary` holds figures reported without a goal; `raw` the single measurements."""

    checks: list[Check] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    raw: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The whole report."""
        return {
            "environment": environment(),
            "checks": [check.to_json() for check in self.checks],
            "raw": [{"kind": "summary", **self.summary}, *self.raw],
        }


def environment() -> dict[str, Any]:
    """Processor, cores, device and versions."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "device": device,
        "python": platform.python_version(),
        **{name: _version(name) for name in _VERSIONS_OF},
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def run(name: str, measure: Callable[[argparse.Namespace], Report], parser: argparse.ArgumentParser) -> int:
    """Parses the command line, measures, writes `--json`, prints the checks; returns the exit code."""
    parser.add_argument("--json", type=Path, help="write the report here")
    arguments = parser.parse_args()
    try:
        report = measure(arguments)
    except Exception:
        traceback.print_exc()
        print(f"{name}: did not run", file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps(report.to_json(), indent=1) + "\n")
    for title, value in report.summary.items():
        print(f"{title}: {value}")
    for check in report.checks:
        print(f"{'met  ' if check.met else 'UNMET'} {check.name} = {check.value:.4g} (goal {check.op} {check.goal:g})")
    return 0 if all(check.met for check in report.checks) else 1
