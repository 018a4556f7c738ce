"""`vscan tune` through real services: what must lose loses, Ctrl-C keeps what was measured, and what is chosen is written."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image

from embedded_model.album import draw_album
from tests.support.client_cli import Ran, in_a_process, vscan
from tests.support.until import until
from vscan_client.cli.settings_file import read_settings

# One visual token of 144 cannot say where things are; a quarter of them, on average, can. Pooling has as many: 6 x 6 cells.
ARGUMENTS = ("--shallow-layer", "2", "--window", "6,3", "--prune-layer", "4", "--budget", "avg:25.01%,1", "--tolerance", "50")
ALL, OF_THE_FIRST_WINDOW = 15, 13
ONE_THREAD = ("-s", "encoder.torch_threads=1", "-s", "decoder.torch_threads=1")


@dataclass(frozen=True)
class Interrupted:
    """How a run ended that got Ctrl-C."""

    code: int
    out: str
    err: str
    kept: list[str]  # lines of points
    left: list[psutil.Process]  # of its services


@dataclass(frozen=True)
class Tuned:
    """How the command ended, and what it left."""

    interrupted: Interrupted
    ran: Ran
    out: Path
    points: dict[str, dict[str, str]]


def data(folder: Path) -> Path:
    """Questions about drawn scenes that need the picture, as a user has them."""
    folder.mkdir()
    lines = []
    for picture in draw_album(5, pictures=2, questions=3):
        (folder / f"{picture.name}.png").write_bytes(picture.png())
        for number, question in enumerate(picture.questions):
            identity = f"{picture.name}/{number}"
            answer = [question.answer.upper() + ".", "something else"]  # right however it is written
            lines.append({"id": identity, "image": f"{picture.name}.png", "question": question.text, "answer": answer})
    (folder / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def points_in(journal: Path) -> list[str]:
    """The whole lines of points."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    return [line for line in lines if line.startswith('{"point"')]


def interrupt(*arguments: object, out: Path) -> Interrupted:
    """Sends Ctrl-C to `vscan tune` once it has restarted a service and measured a point there."""
    journal = out / "points.jsonl"
    command = in_a_process(*arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            asyncio.run(
                until(lambda: len(points_in(journal)) > OF_THE_FIRST_WINDOW or process.poll() is not None, what="points")
            )
            services = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            out_, err = process.communicate(timeout=120)
        finally:
            process.kill()
    return Interrupted(process.returncode, out_, err, points_in(journal), psutil.wait_procs(services, timeout=60)[1])


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """A run that was interrupted when it lacked one point at most, and went on with a grid that needs none of those."""
    folder = tmp_path_factory.mktemp("tune")
    out = folder / "out"
    command = ("tune", "--data", data(folder / "data"), "--out", out, *ARGUMENTS, *ONE_THREAD)
    interrupted = interrupt(*command, out=out)
    ran = vscan(*command, "--window", "6", "--resume")
    assert ran.code == 0, ran.err
    with (out / "points.csv").open() as file:
        return Tuned(interrupted, ran, out, {row["point"]: row for row in csv.DictReader(file)})


def test_ctrl_c_ends_the_services_and_what_was_measured_is_kept(tuned: Tuned) -> None:
    assert (tuned.interrupted.code, tuned.interrupted.left) == (130, [])
    assert "--resume goes on" in tuned.interrupted.err
    assert OF_THE_FIRST_WINDOW < len(tuned.interrupted.kept) <= ALL
    assert f"{ALL} points, 10 of them controls, 6 questions each; 1 restart of a service" in tuned.interrupted.out
    assert points_in(tuned.out / "points.jsonl") == tuned.interrupted.kept


def test_what_is_all_there_is_chosen_from_without_starting_anything(tuned: Tuned) -> None:
    assert f"all {OF_THE_FIRST_WINDOW} points were measured before" in tuned.ran.out
    refused = vscan("tune", "--data", tuned.out.parent / "data", "--out", tuned.out, *ARGUMENTS, *ONE_THREAD)
    assert (refused.code, "--resume" in refused.one_line) == (2, True)


def test_a_restarted_service_measured_with_its_new_settings(tuned: Tuned) -> None:
    points = [json.loads(line)["point"] for line in tuned.interrupted.kept]
    assert [point["window"] for point in points] == [6] * OF_THE_FIRST_WINDOW + [3] * (len(points) - OF_THE_FIRST_WINDOW)


def test_the_point_that_must_lose_loses(tuned: Tuned) -> None:
    accuracy = {name: float(row["accuracy_percent"]) for name, row in tuned.points.items() if row["control"] == "0"}
    whole, quarter, one = accuracy.values()
    assert next(iter(accuracy)) == "no reduction"
    assert min(whole, quarter) > 80
    assert one < 60
    (chosen,) = [row for row in tuned.points.values() if row["chosen"] == "1"]
    assert (chosen["budget"], chosen["control"]) == ("avg:25.01%", "0")


def test_costs_are_those_of_the_answers(tuned: Tuned) -> None:
    whole = tuned.points["no reduction"]
    (chosen,) = [row for row in tuned.points.values() if row["chosen"] == "1"]
    names = ("after_stage_1", "after_last_pruning", "average_over_layers")
    assert [whole[f"visual_tokens_{name}"] for name in names] == ["144", "144", "144"]
    assert [chosen[f"visual_tokens_{name}"] for name in names] == ["54", "18", "36"]
    assert float(chosen["prefill_gflops_of_visual_tokens"]) < 0.4 * float(whole["prefill_gflops_of_visual_tokens"])
    assert float(whole["kv_rows_average_over_layers"]) - float(chosen["kv_rows_average_over_layers"]) == pytest.approx(144 - 36)
    assert all(float(row["prefill_time_over_no_reduction"]) > 0 for row in tuned.points.values())
    by_average = [row for row in tuned.points.values() if row["control"] == "1" and row["budget"] in ("25.01%", "50.02%")]
    assert {row["kind"] for row in by_average} >= {"drop all at layer 4", "random patches", "stage 1 only"}
    assert {row["visual_tokens_average_over_layers"] for row in by_average} == {"36"}


def test_it_says_why_and_draws_it(tuned: Tuned) -> None:
    assert "Pareto front" in tuned.ran.out
    assert "chosen: vscan avg:25.01%" in tuned.ran.out
    with Image.open(tuned.out / "tune.png") as plot:
        assert plot.width > 1000


def test_its_file_has_what_was_chosen(tuned: Tuned) -> None:
    file = tuned.out / "settings.toml"
    assert "# Written by: " in file.read_text()
    assert read_settings(file).of("decoder") == {"prune_layers": "4", "prune_rater": "last_token"}
    assert read_settings(file).of("encoder")["reduction_target_average"] == "0.2501"
