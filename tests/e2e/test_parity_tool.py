"""The parity tool, run as a user runs it, on the kept cases and on one that was tampered with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.parity.__main__ import main

DATA = Path(__file__).parents[1] / "data" / "parity"


def test_the_served_path_agrees_with_the_released_code(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert main(["--checkpoints", str(DATA), "--cases", str(DATA / "expected"), "--json", str(report)]) == 0
    verdicts = json.loads(report.read_text())
    assert {verdict["case"] for verdict in verdicts} == {path.stem for path in (DATA / "expected").glob("*.json")}
    assert all(verdict["ok"] for verdict in verdicts)


def test_a_wrong_expectation_fails(tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    for suffix in (".json", ".safetensors"):
        shutil.copy(DATA / "expected" / f"llava15_96_32{suffix}", cases)
    stated = json.loads((cases / "llava15_96_32.json").read_text())
    stated["output_token_ids"][3] += 1
    (cases / "llava15_96_32.json").write_text(json.dumps(stated))
    shutil.copy(DATA / "sq_a.png", tmp_path)
    assert main(["--checkpoints", str(DATA), "--cases", str(cases)]) == 1


@pytest.mark.parametrize("extra", [[], ["--kind", "nothing_of_that_name"]])
def test_no_case_is_an_error(tmp_path: Path, extra: list[str]) -> None:
    cases = DATA / "expected" if extra else tmp_path
    assert main(["--checkpoints", str(DATA), "--cases", str(cases), *extra]) == 2
