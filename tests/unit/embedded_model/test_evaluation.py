"""The evaluation's parts: the exam, the rows, the intervals, and the tables made of a kept run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decoder_service.pruning import plan_pruning, visual_tokens_average
from decoder_service.request import LayerPruning
from embedded_model.config import LAYERS, VISUAL_TOKENS
from embedded_model.evaluate import exam as exam_module
from embedded_model.evaluate.asking import Outcome, TokenCounts
from embedded_model.evaluate.evaluation import Evaluation
from embedded_model.evaluate.exam import ExamPicture, best_constant, draw_exam, share_of_no
from embedded_model.evaluate.report import build_lines, main_lines, to_json, to_markdown
from embedded_model.evaluate.rows import (
    BUDGETS,
    EARLY,
    HALFWAY,
    LEAST_BUDGET,
    MAIN_CONTROLS,
    Row,
    build_rows,
)
from embedded_model.questions import FAMILIES, Question
from embedded_model.scenes import Split, draw_layout, seeded
from encoder_service.reduction.budget import Grid, plan_reduction
from studies.kept.evaluation import ALL_TOKENS, VSCAN, plot
from studies.statistics import Bootstrap
from vscan.specs import DEFAULT_REDUCTION, PositionPolicy, PruneSpec, Rater, ReductionMethod

ROWS = build_rows()
OTHER_AVERAGE = {"stage 2 only, layer 4", ALL_TOKENS, "half resolution, all tokens"}


def planned_counts(row: Row) -> tuple[int, int, float]:
    """After stage 1, after stage 2, on average: what the services' own planners make of a row."""
    reduction = row.reduction.filled_from(DEFAULT_REDUCTION)
    first = plan_reduction(reduction, Grid(12, 12), 6).keep_tokens
    defaults = PruneSpec(rater=Rater.LAST_TOKEN, seed=0, positions=PositionPolicy.RENUMBER)
    pruning = plan_pruning(
        row.prune.filled_from(defaults),
        reduction=reduction,
        prune_layers=(row.prune_layer,),
        layers=LAYERS,
        visual_tokens=first,
        visual_unreduced=VISUAL_TOKENS,
        images=1,
    )
    last = first
    if pruning.layers:
        last = 0 if pruning.rater is Rater.DROP_ALL else getattr(pruning.budgets[0], "count", -1)
    steps = [LayerPruning(layer, first, (tuple(range(last)),)) for layer in pruning.layers]
    return first, last, visual_tokens_average(first, steps, layers=LAYERS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_has_the_average_that_it_is_named_after(row: Row) -> None:
    _, _, average = planned_counts(row)
    if row.method in OTHER_AVERAGE:
        assert average > VISUAL_TOKENS / 2
    else:
        shares = {**BUDGETS, "25%": 1 / 4}
        assert average == pytest.approx(VISUAL_TOKENS * shares[row.budget], abs=0.5)


def test_the_papers_counts() -> None:
    counts = {row.name: planned_counts(row) for row in ROWS if row.method == VSCAN}
    assert counts == {
        "VScan 33%": (72, 24, 48.0),
        "VScan 22%": (48, 16, 32.0),
        "VScan 11%": (24, 8, 16.0),
        "VScan 25%": (54, 18, 36.0),
    }


def test_rows_have_names_of_their_own_and_are_compared_with_rows_that_are_there() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {row.against for row in ROWS} - {""} <= set(names)


def test_every_control_is_there() -> None:
    methods = {row.reduction.method for row in ROWS}
    assert methods == {None, *ReductionMethod}  # None: the deployment's, VScan
    assert {row.prune.rater for row in ROWS} == {None, Rater.TEXT_MEAN, Rater.RANDOM, Rater.DROP_ALL, Rater.NONE}
    assert any(row.reduction.merge is False for row in ROWS)
    assert any(row.prune.positions is PositionPolicy.KEEP for row in ROWS)
    assert any(row.half_resolution for row in ROWS)
    assert {row.prune_layer for row in ROWS} == {EARLY, HALFWAY}


def test_an_exam_is_drawn_again_alike_and_asks_every_family() -> None:
    first, again, other = draw_exam(-3, 20), draw_exam(-3, 20), draw_exam(4, 20)
    assert first == again
    assert first != other
    assert len(first) == 3  # 21 questions
    assert all([q.family for q in picture.questions] == list(FAMILIES) for picture in first)
    assert all(picture.png != picture.half_png for picture in first)


def test_an_exam_with_a_training_scene_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = draw_exam(0, 7)
    monkeypatch.setattr(exam_module, "_CHECKED_LAYOUTS", 3)
    layout, _ = draw_layout(seeded(0, exam_module._STREAM, 1), Split.TRAIN)
    leaked = [ExamPicture(b"", b"", layout.describe(), ())]
    exam_module._check_disjoint(0, pictures)
    with pytest.raises(ValueError, match="training scenes"):
        exam_module._check_disjoint(0, [*pictures, *leaked])


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    pictures, truth, trials = 120, 0.7, 200
    bootstrap = Bootstrap(pictures, seed=1)
    covered = 0
    for _ in range(trials):
        estimate = bootstrap.mean((rng.random(pictures) < truth).astype(float))
        covered += estimate.low <= truth <= estimate.high
    assert 0.88 <= covered / trials <= 0.99  # one standard deviation is 0.015


def test_paired_differences_are_narrower_than_unpaired_ones() -> None:
    rng = np.random.default_rng(2)
    first = rng.random(300)
    second = first - 0.1 + 0.01 * rng.standard_normal(300)
    bootstrap = Bootstrap(300, seed=0)
    difference = bootstrap.mean(first - second)
    assert difference.value == pytest.approx(0.1, abs=0.005)
    assert difference.high - difference.low < 0.01 < bootstrap.mean(first).high - bootstrap.mean(first).low


def test_equal_rows_differ_by_nothing_and_retain_everything() -> None:
    right = np.random.default_rng(3).random(50)
    bootstrap = Bootstrap(50, seed=0)
    assert bootstrap.mean(right - right) == bootstrap.mean(np.zeros(50))
    assert bootstrap.ratio(right, right).low == pytest.approx(1.0)


def evaluation(pictures: int = 40) -> Evaluation:
    """One made of drawn successes, the same on every call."""
    rng = np.random.default_rng(4)
    outcomes = [
        Outcome(row, rng.random((pictures, len(FAMILIES))) < 0.8, TokenCounts(24, 8, 16.0))
        for row in ROWS
        if row.budget != "22%"
    ]
    lines = build_lines(outcomes, seed=0)
    constant = dict.fromkeys(FAMILIES, 0.4)
    return Evaluation(
        environment={"cores": 2},
        seed=0,
        pictures=pictures,
        questions=280,
        constant=constant,
        no_share=0.3,
        seconds=1,
        lines=lines,
    )


def test_a_kept_evaluation_is_read_back_whole(tmp_path: Path) -> None:
    made = evaluation()
    made.write(tmp_path / "kept.json")
    assert Evaluation.read(tmp_path / "kept.json") == made


def test_scores_are_means_over_families_of_what_was_right() -> None:
    line = evaluation().lines[0]
    bits = np.array([[int(bit) for bit in picture] for picture in line.right.split()])
    assert bits.shape == (40, len(FAMILIES))
    assert line.score.value == pytest.approx(bits.mean())
    assert [e.value for e in line.families.values()] == pytest.approx(bits.mean(axis=0))
    assert line.score.low < line.score.value < line.score.high


def test_the_table_has_a_line_for_each_row_and_the_difference_is_by_subtraction() -> None:
    lines = evaluation().lines
    text = to_markdown(lines, evaluation().constant).splitlines()
    assert len(text) == len(lines) + 3
    assert len({line.count("|") for line in text}) == 1
    scores = {line.name: line.score.value for line in lines}
    for line in lines:
        if line.difference:
            assert line.difference.value == pytest.approx(scores[line.name] - scores[line.against])


def test_the_main_lines_are_all_tokens_vscan_and_the_controls_at_the_least_budget() -> None:
    lines = main_lines(evaluation().lines)
    assert [line.name for line in lines[:2]] == [ALL_TOKENS, "VScan 33%"]
    assert {line.method for line in lines} == {ALL_TOKENS, VSCAN, *MAIN_CONTROLS}
    assert all(line.budget == LEAST_BUDGET for line in lines if line.method in MAIN_CONTROLS)


def test_the_best_constant_answer_and_the_share_of_no_are_counted() -> None:
    asked = [["yes", "red", "1", "no", "no", "no", "a"], ["yes", "no", "2", "no", "top left", "red", "no"]]
    pictures = [
        ExamPicture(b"", b"", "", tuple(Question(family, "?", a) for family, a in zip(FAMILIES, answers, strict=True)))
        for answers in asked
    ]
    assert best_constant(pictures) == dict(zip(FAMILIES, [1.0, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5], strict=True))
    assert share_of_no(pictures) == 6 / 12


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    plot(to_json(evaluation().lines), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
