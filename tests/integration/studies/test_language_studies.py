"""`vscan study` of the language model, from the command line: files, columns, findings, refusals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from embedded_model.album import draw_album
from studies.catalogue import study_named
from studies.inputs import read_inputs
from studies.loading import open_model
from studies.study import Task
from tests.support.client_cli import Ran, vscan
from tests.support.llava_next import make_checkpoint, png
from tests.support.qwen import shared_qwen
from tests.support.video_llava import shared_video_llava

FAMILIES = {"all", "exist", "attribute", "count", "digit", "position", "place", "letter"}
LAYERS = 8


def study(name: str, out: Path, *options: object) -> Ran:
    ran = vscan("study", name, "--out", out, "--device", "cpu", *options)
    assert ran.code == 0, ran.err
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    return ran


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def near(row: dict[str, str], names: Sequence[str]) -> list[float]:
    return [float(row[name]) for name in names]


def test_position_bias(tmp_path: Path) -> None:
    ran = study("position-bias", tmp_path, "--count", 2, "--keep", 36, "--layers", "2,7")
    rows = table(tmp_path / "position-bias.csv")
    assert [(row["prune_layer"], row["rater"]) for row in rows] == [
        ("", "candidates"),
        *((str(layer), rater) for layer in range(1, LAYERS) for rater in ("last_token", "text_mean")),
    ]
    assert near(rows[0], ["centre_row_fraction", "centre_column_fraction"]) == pytest.approx([0.5, 0.5])
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in row if name.endswith("_fraction"))
    kept = [
        row for row in table(tmp_path / "position-bias-map.csv") if (row["prune_layer"], row["rater"]) == ("2", "text_mean")
    ]
    assert len(kept) == 144
    assert sum(float(row["retained_fraction"]) for row in kept) == pytest.approx(36)
    assert "2 questions, 25 % of the places kept" in ran.out


def test_layer_attention(tmp_path: Path) -> None:
    ran = study("layer-attention", tmp_path, "--count", 7)
    rows = table(tmp_path / "layer-attention.csv")
    assert {row["family"] for row in rows} == FAMILIES
    assert [row["layer"] for row in rows if row["family"] == "all"] == [str(layer) for layer in range(LAYERS)]
    parts = ["visual_fraction", "system_fraction", "question_fraction"]
    assert all(sum(near(row, parts)) == pytest.approx(1, abs=1e-5) for row in rows)
    assert "the last prompt token looks at these most in layer" in ran.out


def test_convergence(tmp_path: Path) -> None:
    study("convergence", tmp_path, "--count", 7)
    rows = table(tmp_path / "convergence.csv")
    assert {(row["family"], row["reading"]) for row in rows} == {(f, way) for f in FAMILIES for way in ("lens", "blind")}
    for row in rows:
        if row["layers_run"] == str(LAYERS):
            assert near(row, ["agreement_fraction", "kl_mean_nats", "stable_fraction"]) == [1, 0, 1]
    assert {int(row["median_stable_layers_run"]) for row in table(tmp_path / "convergence-stable.csv")} <= set(
        range(LAYERS + 1)
    )


def test_own_questions_about_reduced_pictures(tmp_path: Path) -> None:
    """Two questions about one picture, in a family that nobody named; the encoder keeps an eighth."""
    (tmp_path / "a.png").write_bytes(draw_album(3, pictures=1, questions=1)[0].png())
    lines = [{"id": index, "image": "a.png", "question": text} for index, text in enumerate(("is there a star?", "what is it"))]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    study("layer-attention", out, "--data", tmp_path, "--reduction", "vscan", "--budget", 18)
    rows = table(out / "layer-attention.csv")
    assert {row["family"] for row in rows} == {"all"}
    assert {row["visual_fraction_half_width_95"] for row in rows} == {"inf"}  # of one picture no interval is known
    assert all(18 / 40 < float(row["visual_rows_fraction"]) < 18 / 24 for row in rows)
    study("position-bias", out, "--data", tmp_path, "--reduction", "vscan", "--budget", 18, "--keep", "50%")
    handed_over = [row for row in table(out / "position-bias-map.csv") if row["rater"] == "candidates"]
    assert sum(float(row["retained_fraction"]) for row in handed_over) == 18


def test_of_one_question_no_interval_and_no_layer_that_is_most_even(tmp_path: Path) -> None:
    ran = study("position-bias", tmp_path, "--count", 1)
    assert "1 question, 33 % of the places kept" in ran.out
    assert "without intervals, of one picture" in ran.out
    assert "off before layers" in ran.out
    assert "interval," not in ran.out
    assert "evenly" not in ran.out


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "llava_next": make_checkpoint,
    "qwen2_5_vl": lambda _: shared_qwen()[0],
    "video_llava": lambda _: shared_video_llava()[0],
}


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_other_families_and_pictures_of_several_shapes(tmp_path: Path, family: str) -> None:
    """The stitched tile of LLaVA-NeXT, the grids of Qwen2.5-VL, a question about two pictures."""
    for name, sides in (("a.png", (120, 84)), ("b.png", (90, 170))):
        (tmp_path / name).write_bytes(png(*sides))
    shown = [["a.png"], ["b.png"], ["a.png", "b.png"]]
    lines = [{"id": number, "images": images, "question": "what is it?"} for number, images in enumerate(shown)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    inputs = read_inputs(tmp_path, count=3, seed=0, with_questions=True)
    task = Task(open_model(CHECKPOINTS[family](tmp_path / "checkpoint"), device="cpu"), inputs)
    bias = list(study_named("position-bias").run(task).table.rows)
    assert [row[:2] for row in bias[:3]] == [["", "candidates"], [1, "last_token"], [1, "text_mean"]]
    assert len(bias) == 1 + 2 * 3
    assert [bias[0][3], bias[0][7]] == pytest.approx([0.5, 0.5])  # the centre of what the encoder handed over
    for row in study_named("convergence").run(task).table.rows:
        if row[3] == 4:  # of all layers, agreement and divergence
            assert row[4:6] == (1, 0)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("position-bias", ["--layers", "0"], "--layers: 0, limit 1 to 7"),
        ("position-bias", ["--layers", "3,8"], "--layers: 8, limit 1 to 7"),
        ("position-bias", ["--keep", "0"], "--keep: '0' is not TOKENS or N%"),
        ("position-bias", ["--keep", "9,3"], "--keep: '9,3' is not TOKENS or N%: one budget"),
        ("layer-attention", ["--budget", "9"], "--budget: nothing is reduced, limit with --reduction"),
        ("convergence", ["--reduction", "most"], "--reduction: 'most' is not METHOD: one of vscan"),
        ("convergence", ["--reduction", "vscan", "--budget", "0"], "--budget: '0' is not SHARE"),
    ],
)
def test_what_is_refused_before_anything_is_written(tmp_path: Path, name: str, options: list[str], told: str) -> None:
    ran = vscan("study", name, "--out", tmp_path / "out", "--count", 1, "--device", "cpu", *options)
    assert ran.code == 2
    assert told in ran.one_line
    assert not (tmp_path / "out").exists()
