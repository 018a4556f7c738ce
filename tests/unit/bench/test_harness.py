"""The form of a report, and how a benchmark exits."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from bench.harness import Check, Report, run


def run_with(monkeypatch: pytest.MonkeyPatch, report: Report | Exception, path: Path) -> int:
    def measure(arguments: argparse.Namespace) -> Report:
        if isinstance(report, Exception):
            raise report
        return report

    monkeypatch.setattr(sys, "argv", ["bench", "--json", str(path)])
    return run("bench.example", measure, argparse.ArgumentParser())


@pytest.mark.parametrize(
    ("value", "op", "goal", "met"), [(5, "<=", 5, True), (5.1, "<=", 5, False), (0, "==", 0, True), (2, ">=", 3, False)]
)
def test_a_check_is_met_if_its_comparison_holds(value: float, op: str, goal: float, met: bool) -> None:
    assert Check("x", value, op, goal).met is met


def test_the_report_has_the_agreed_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    report = Report(checks=[Check("overhead_ms", 4.0, "<=", 5.0)], summary={"ratio": 2.0}, raw=[{"kind": "question"}])
    assert run_with(monkeypatch, report, tmp_path / "report.json") == 0
    written = json.loads((tmp_path / "report.json").read_text())
    assert set(written) == {"environment", "checks", "raw"}
    assert written["checks"] == [{"name": "overhead_ms", "value": 4.0, "op": "<=", "goal": 5.0, "met": True}]
    assert written["raw"] == [{"kind": "summary", "ratio": 2.0}, {"kind": "question"}]
    assert written["environment"]["torch"]


def test_an_unmet_check_exits_with_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run_with(monkeypatch, Report(checks=[Check("x", 6, "<=", 5)]), tmp_path / "report.json") == 1


def test_a_benchmark_that_did_not_run_exits_with_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run_with(monkeypatch, RuntimeError("no stack"), tmp_path / "report.json") == 2
    assert not (tmp_path / "report.json").exists()
