"""`vscan study`, from the command line to the files."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from decoder_service.language.registry import load_language
from encoder_service.vision.registry import load_vision
from studies.catalogue import STUDIES, study_named
from studies.study import Result, Table
from studies.vision.tile_maps import LayerMeans
from studies.vision_half import VisionHalf
from studies.writing import write_result
from tests.support.client_cli import Ran, vscan
from tests.support.planted import PATCHES, PLANTED, SIDE, planted_shares, write_planted
from tests.support.qwen import noise, shared_qwen
from vscan.errors import InvalidArgument

COLOURS = 100
LOAD: dict[str, Any] = {"vision": load_vision, "language": load_language}
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))  # as if they were not installed
from vscan_client.cli.main import main
main(sys.argv[2:])
"""
MANY_PATCHES = [f"--patch={number // 12},{number % 12}" for number in range(25)]


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        noise(2 + number, 3, seed=number).save(folder / f"noise {number}.png")
    return folder


def study(*arguments: object) -> Ran:
    return vscan("study", *arguments)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
    assert colours is not None
    assert len(colours) > COLOURS


def test_a_planted_patch_is_in_the_table_and_the_picture(planted: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    ran = study("cls-attention", "--model", planted, "--data", images, "--out", out, "--show", 2, "--device", "cpu")
    assert ran.code == 0, ran.err
    assert [line for line in ran.out.splitlines() if line.startswith(str(out))] == [
        str(out / "cls-attention.png"),
        str(out / "cls-attention.csv"),
        str(out / "cls-attention-layers.csv"),
    ]
    assert "3 tiles" in ran.out
    check_picture(out / "cls-attention.png")
    cells = rows_of(out / "cls-attention.csv")
    assert len(cells) == 2 * 3 * PATCHES
    assert {cell["image"] for cell in cells} == {"noise 0.png", "noise 1.png"}
    for image in ("noise 0.png", "noise 1.png"):
        mine = [cell for cell in cells if (cell["image"], cell["layer"]) == (image, "1")]
        best = max(mine, key=lambda cell: float(cell["attention_share"]))
        assert (int(best["row"]), int(best["column"])) == PLANTED
        assert float(best["attention_share"]) == pytest.approx(planted_shares()[0], rel=1e-4)
    assert [row["layer"] for row in rows_of(out / "cls-attention-layers.csv")] == ["0", "1", "2"]


def test_chosen_patches_and_layers_are_drawn(planted: Path, images: Path, tmp_path: Path) -> None:
    chosen = ["--patch", "3,0", "--patch", "0,1", "--layers", "2,0", "--image", 1]
    ran = study("self-attention", "--model", planted, "--data", images, "--out", tmp_path, "--device", "cpu", *chosen)
    assert ran.code == 0, ran.err
    check_picture(tmp_path / "self-attention.png")
    layers = rows_of(tmp_path / "self-attention.csv")
    spots = [(row, column) for row in range(SIDE) for column in range(SIDE)]
    uniform = np.mean([np.hypot(a - c, b - d) for a, b in spots for c, d in spots])
    assert float(layers[0]["distance_patches"]) == pytest.approx(uniform, rel=1e-4)
    assert float(layers[2]["distance_patches"]) == pytest.approx(0, abs=1e-6)
    cells = rows_of(tmp_path / "self-attention-maps.csv")
    assert {cell["image"] for cell in cells} == {"noise 1.png"}
    assert {(cell["from_row"], cell["from_column"]) for cell in cells} == {("3", "0"), ("0", "1")}


def test_a_tower_without_class_token_and_scenes_by_default(tmp_path: Path) -> None:
    ran = study("cls-attention", "--model", shared_qwen()[0], "--count", 2, "--out", tmp_path, "--device", "cpu")
    assert ran.code == 0, ran.err
    assert "attention that patches receive" in ran.out
    check_picture(tmp_path / "cls-attention.png")
    assert "kept_by_cls_percent" not in rows_of(tmp_path / "cls-attention-layers.csv")[0]


def test_the_embedded_model_and_its_scenes_need_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = study("cls-attention", "--count", "3", "--device", "cpu")
    assert ran.code == 0, ran.err
    assert "the embedded model, scenes of seed 0" in ran.out
    assert "letters are" in ran.out
    shares = rows_of(tmp_path / "studies-out" / "cls-attention-layers.csv")[2]
    kinds = ("objects", "letters", "distractors", "ground")
    assert sum(float(shares[f"{kind}_percent"]) for kind in kinds) == pytest.approx(100, rel=1e-4)


def test_the_list_names_every_study_with_its_options() -> None:
    ran = study("--list")
    assert ran.code == 0
    for each in STUDIES.values():
        assert each.name in ran.out
        assert each.summary in ran.out
        assert all(f"--{option.name} {option.form}" in ran.out for option in each.options)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which one?, limit cls-attention"),
        (["nonsense"], "no study 'nonsense', limit cls-attention"),
        (["cls-attention", "--patch", "1,2"], "--patch: cls-attention has no such option, limit --layers, --show"),
        (["cls-attention", "--show", "0"], "--show: '0' is not N: at least 1 is needed"),
        (["cls-attention", "--show", "25"], "--show: '25' is not N: at most 24 can be"),
        (["self-attention", "--count", "1", *MANY_PATCHES], "--patch: 25 of them, limit 24"),
        (["cls-attention", "--show"], "--show: 'true' is not N: a whole number is needed"),
        (["cls-attention", "--layers", "1,x"], "--layers: '1,x' is not LAYER,LAYER,…: a whole number is needed"),
        (["cls-attention", "--layers", "1", "--layers", "2"], "--layers: given twice"),
        (["cls-attention", "--layers", "0,9", "--count", "1"], "--layers: 9, limit 0 to 6, the layers that are served"),
        (["self-attention", "--patch", "3"], "--patch: '3' is not ROW,COLUMN: a row and a column are needed"),
        (["self-attention", "--patch", "12,0", "--count", "1"], "--patch: 12,0, limit 11,11, the last patch"),
        (["self-attention", "--image", "1", "--count", "1"], "--image: 1, limit 0 to 0"),
        (["self-attention", "--tile", "1", "--count", "1"], "--tile: 1, limit 0 to 0 of scene 0"),
        (["cls-attention", "--data", "nowhere"], "--data: nowhere is not a folder"),
        (["cls-attention", "--dtype", "int8"], "--dtype: 'int8', limit auto, float32, bfloat16 or float16"),
        (["cls-attention", "stray"], "'stray' is not an option"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = study(*arguments)
    assert ran.code == 2
    assert said in ran.one_line
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_images_and_folders_that_are_no_checkpoints(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    ran = study("cls-attention", "--model", planted, "--data", tmp_path, "--out", tmp_path / "out")
    assert (ran.code, "a.png: image: not a readable PNG file" in ran.one_line) == (2, True), ran.err
    ran = study("cls-attention", "--model", tmp_path / "nowhere")
    assert (ran.code, "--model: " in ran.one_line, "nowhere is not a folder" in ran.one_line) == (2, True, True), ran.err
    ran = study("cls-attention", "--model", tmp_path, "--out", tmp_path / "out")
    assert (ran.code, "--model: " in ran.one_line, "no config.json" in ran.one_line) == (2, True, True), ran.err
    ran = study("cls-attention", "--device", "abacus")
    assert (ran.code, "--device: abacus cannot be used here" in ran.one_line) == (2, True), ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "variable", "code", "said"),
    [
        ("cls-attention", ["--layers", "9"], "", 2, "--layers: 9, limit 0 to 6"),
        ("cls-attention", ["--out", "file/below"], "", 2, "--out: "),
        ("position-bias", [], "99", 1, "prune_layers: 99, but the model's last layer is 7"),
        ("layer-attention", [], "99", 1, "prune_layers: 99, but the model's last layer is 7"),
        ("convergence", [], "99", 1, "prune_layers: 99, but the model's last layer is 7"),
    ],
)
def test_what_cannot_be_is_said_before_the_work(
    name: str, arguments: list[str], variable: str, code: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be encoded, and no map be counted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VisionHalf, "encode", None)
    monkeypatch.setattr(LayerMeans, "add", None)
    if variable:
        monkeypatch.setenv("VSCAN_DECODER_PRUNE_LAYERS", variable)
    (tmp_path / "file").write_text("")
    ran = study(name, "--count", 2, "--device", "cpu", *arguments)
    assert (ran.code, said in ran.one_line) == (code, True), ran.err


@pytest.mark.parametrize("name", ["cls-attention", "self-attention", "layer-attention", "convergence", "position-bias"])
def test_a_model_whose_numbers_overflow_has_no_findings(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a language model trained in bfloat16 and run in float16."""
    half = "language" if STUDIES[name].needs_questions else "vision"

    def load(*arguments: Any, **options: Any) -> Any:
        model = LOAD[half](*arguments, **options)
        norm = model.layers[2].input_layernorm if half == "language" else model._tower.encoder.layers[2].layer_norm1
        norm.weight.fill_(torch.inf)
        return model

    monkeypatch.setattr(f"studies.{half}_half.load_{half}", load)
    ran = study(name, "--count", 1, "--device", "cpu", "--out", tmp_path / "out")
    told = f"--dtype: the attention of layer 2 of the {half} {'model' if half == 'language' else 'transformer'} is infinite"
    assert (ran.code, told in ran.one_line) == (2, True), ran.err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = Result(table=Table(("a",), [(1.23456789,)]), draw=lambda figure: None, findings=())
    with pytest.raises(InvalidArgument, match=r"--out: .*file"):
        write_result(result, "name", tmp_path / "file")
    _, table = write_result(result, "name", tmp_path)
    assert table.read_text() == "a\n1.23457\n"


@pytest.mark.parametrize(
    ("missing", "arguments", "code", "said"),
    [
        ("torch,numpy,PIL,matplotlib,transformers", ["--list"], 0, "cls-attention"),
        (
            "torch",
            ["cls-attention"],
            2,
            "vscan study cls-attention needs torch, of the extra `serve`: pip install 'vscan-serve[serve]'",
        ),
        ("matplotlib", ["cls-attention"], 2, "needs matplotlib, of the extra `plot`: pip install 'vscan-serve[plot]'"),
    ],
)
def test_what_an_install_lacks_is_said(missing: str, arguments: list[str], code: int, said: str) -> None:
    command = [sys.executable, "-c", WITHOUT, missing, "study", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == (0 if code == 0 else 1)


def test_names_in_the_catalogue_are_their_own() -> None:
    assert all(study_named(name).name == name for name in STUDIES)
