"""`python -m embedded_model.evaluate` as a user runs it, on a small exam."""

import subprocess
import sys
from pathlib import Path

import pytest

from embedded_model.evaluate.evaluation import Evaluation
from embedded_model.evaluate.rows import build_rows
from embedded_model.questions import FAMILIES


@pytest.mark.timeout(600)
def test_the_command_prints_a_table_and_keeps_every_figure(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    command = [sys.executable, "-m", "embedded_model.evaluate", "--questions", "5", "--seed", "3", "--json", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    evaluation = Evaluation.read(kept)
    assert (evaluation.pictures, evaluation.questions) == (1, len(FAMILIES))
    assert [line.name for line in evaluation.lines] == [row.name for row in build_rows()]
    counts = {line.name: (line.after_stage_1, line.after_stage_2, line.average_tokens) for line in evaluation.lines}
    assert counts["all tokens"] == (144, 144, 144.0)
    assert counts["VScan 11%"] == (24, 8, 16.0)
    assert counts["drop all at layer 4 11%"] == (32, 0, 16.0)
    assert counts["stage 2 only, layer 1 22%"] == (144, 16, 32.0)
    assert counts["2×2 pooling 25%"] == (36, 36, 36.0)
    assert len(done.stdout.splitlines()) == len(evaluation.lines) + 2
