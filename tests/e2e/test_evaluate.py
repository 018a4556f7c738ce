"""`python -m embedded_model.evaluate` as a user runs it, on a small exam."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from embedded_model.evaluate.__main__ import main
from embedded_model.evaluate.asking import _deployed, ask_rows
from embedded_model.evaluate.evaluation import Evaluation
from embedded_model.evaluate.exam import draw_exam
from embedded_model.evaluate.rows import build_rows
from embedded_model.questions import FAMILIES
from vscan.errors import InvalidArgument
from vscan.specs import ReductionMethod, ReductionSpec, TokensPerTile

PRUNE_LAYER = 4


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
    assert counts["stage 2 only, layer 4 53%"] == (144, 8, 76.0)
    assert counts["2×2 pooling 25%"] == (36, 36, 36.0)
    assert len(done.stdout.splitlines()) == len(evaluation.lines) + 3


@pytest.fixture(scope="module")
def deployed() -> Iterator[str]:
    with _deployed(PRUNE_LAYER, None) as server:
        yield server


@pytest.fixture
def one_deployment(deployed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that prune at this layer share one; the command's test starts all that its rows need."""
    monkeypatch.setattr(
        "embedded_model.evaluate.asking._deployed", lambda layer, model: nullcontext({PRUNE_LAYER: deployed}[layer])
    )


@pytest.mark.usefixtures("one_deployment")
def test_what_a_row_asks_for_reaches_the_services_and_answers_are_compared_with_the_truth() -> None:
    names = ("all tokens", "half resolution, all tokens", "random patches 11%")
    rows = [row for row in build_rows() if row.name in names]
    asked = []
    outcomes = ask_rows(rows, draw_exam(5, 20 * len(FAMILIES)), None, lambda: asked.append(1))
    scores = {outcome.row.name: outcome.right.mean() for outcome in outcomes}
    assert len(asked) == 3 * 20 * len(FAMILIES)
    assert scores["all tokens"] > 0.9
    assert scores["half resolution, all tokens"] < 0.9  # letters and digits are lost
    assert scores["random patches 11%"] < 0.8


@pytest.mark.usefixtures("one_deployment")
def test_a_failed_question_ends_the_evaluation_with_its_error() -> None:
    row = replace(build_rows()[0], reduction=ReductionSpec(method=ReductionMethod.VSCAN, budget=TokensPerTile(145)))
    with pytest.raises(InvalidArgument, match="145"):
        ask_rows([row], draw_exam(5, 1), None, lambda: None)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--json", "nowhere/kept.json", "not a folder"), ("--plot", "plot.txt", ".png"), ("--questions", "0", "at least 1")],
)
def test_a_bad_option_is_refused_before_anything_starts(
    option: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate", option, value])
    monkeypatch.delattr("vscan_client.cli.local_stack.LocalStack.start")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert option in err
    assert said in err
