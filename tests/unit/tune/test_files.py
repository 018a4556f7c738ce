"""Questions that are read, points that are kept, the CSV and the settings file."""

from __future__ import annotations

import csv
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from studies.tune.figures import Comparison, build_figures, write_csv
from studies.tune.grid import Known
from studies.tune.journal import Journal
from studies.tune.point import NO_REDUCTION, Deployment
from studies.tune.questions import Question, digest_of, draw_questions, normalised, read_folder
from studies.tune.settings_text import settings_of, settings_text
from tests.unit.tune.made import HERE, measured, point
from vscan.config import load_settings
from vscan.errors import InvalidArgument
from vscan.specs import Rater, Ratio, ReductionMethod, TargetAverage, TokensPerTile
from vscan_client.cli.settings_file import read_settings
from vscan_client.content import Image

OF = {"model": "a", "questions": "b"}


def folder(tmp_path: Path, *lines: object) -> Path:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def line(identity: int = 1, **fields: object) -> dict[str, object]:
    return {"id": identity, "image": "a.png", "question": "what?", "answer": "a cat", **fields}


@pytest.mark.parametrize("text", ["a cat", " A  Cat. ", "A CAT", "a\ncat"])
def test_case_blanks_and_a_full_stop_do_not_count(text: str) -> None:
    asked = Question(visuals=(), text="what?", answers=("A cat", "cat"), options={})
    assert asked.is_right(text)
    assert asked.is_right("Cat.")
    assert not asked.is_right("a cats")
    assert normalised("No. 7") == "no. 7"


def test_a_folders_questions_are_those_of_ask_many_with_answers(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path, line(1), line(2, answer=["yes", "yeah"], max_new_tokens=3)), 10)
    assert [question.answers for question in found] == [("a cat",), ("yes", "yeah")]
    assert found[0].picture == found[1].picture
    sampling = found[1].options["sampling"]
    assert sampling is not None
    assert sampling.max_new_tokens == 3


def test_fewer_questions_are_spread_over_the_file(tmp_path: Path) -> None:
    found = read_folder(folder(tmp_path, *[line(number, answer=str(number)) for number in range(8)]), 3)
    assert [question.answers for question in found] == [("0",), ("2",), ("5",)]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "has no questions"),
        ([line(answer=[])], "question 1: answer: a text"),
        ([line(answer=7)], "question 1: answer: a text"),
        ([line(7, budget="avg:11%")], "question 7: budget: a question cannot set what is tuned"),
        ([line(7, merge=False)], "question 7: merge"),
        ([line(image="b.png")], "b.png"),
        ([line(shallow=1)], "shallow: no such field"),
    ],
)
def test_a_question_that_cannot_be_used_is_named(tmp_path: Path, lines: list[object], said: str) -> None:
    with pytest.raises(InvalidArgument, match="--data") as refused:
        read_folder(folder(tmp_path, *lines), 10)
    assert said in str(refused.value)
    assert "questions.jsonl" in str(refused.value) or "b.png" in str(refused.value)


def test_drawn_questions_are_the_same_again_and_of_all_families() -> None:
    drawn = draw_questions(10)
    assert len(drawn) == 14
    assert digest_of(drawn) == digest_of(draw_questions(14))
    assert digest_of(drawn) != digest_of(draw_questions(15))


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    first, second = measured(point("8"), "10"), measured(point("9"), "11")
    with Journal(tmp_path, OF, resume=False) as journal:
        journal.add(first)
    path = tmp_path / "points.jsonl"
    path.write_text(path.read_text() + '{"point": {"ki')  # as it is when the machine is switched off
    with Journal(tmp_path, OF, resume=True) as journal:
        assert journal.get(first.point) == first
        assert journal.get(second.point) is None
        journal.add(second)
    with Journal(tmp_path, OF, resume=True) as journal:
        assert (journal.get(first.point), journal.get(second.point)) == (first, second)


def test_what_services_said_is_kept_for_those_that_are_started_alike(tmp_path: Path) -> None:
    known = Known(layers=8, deep_layer=6, tokens_per_tile=144, shallow_layer=2, window=6, prune_layers=(4,))
    alike = {"encoder": {"window": "6"}, "decoder": {}}
    other: dict[str, dict[str, str]] = {"encoder": {}, "decoder": {}}
    with Journal(tmp_path, OF, resume=False) as journal:
        assert journal.known(alike) is None
        journal.add_known(alike, known)
        journal.add(measured(point("8"), "10"))
    for _ in range(2):  # also of a file that was written anew
        with Journal(tmp_path, OF, resume=True) as journal:
            assert (journal.known(alike), journal.known(other)) == (known, None)


def test_points_of_something_else_are_left_alone(tmp_path: Path) -> None:
    with Journal(tmp_path, OF, resume=False) as journal:
        journal.add(measured(point("8"), "10"))
    kept = (tmp_path / "points.jsonl").read_text()
    with pytest.raises(InvalidArgument, match="--resume"):
        Journal(tmp_path, OF, resume=False)
    with pytest.raises(InvalidArgument, match="questions differ"):
        Journal(tmp_path, {**OF, "questions": "c"}, resume=True)
    assert (tmp_path / "points.jsonl").read_text() == kept
    with Journal(tmp_path, OF, resume=True), pytest.raises(InvalidArgument, match="another run writes to"):
        Journal(tmp_path, OF, resume=True)
    for other in ("not JSON\n", "[]\n", "5\n", '"known"\n', '{"format": 1, "model": "a", "questions": "b"}\n{"point": 3}\n'):
        (tmp_path / "points.jsonl").write_text(other)
        with pytest.raises(InvalidArgument, match="is not a file of `vscan tune`"):
            Journal(tmp_path, OF, resume=True)
        assert (tmp_path / "points.jsonl").read_text() == other


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match=r"--out: .*file"):
        Journal(tmp_path / "file", OF, resume=False)


def test_the_csv_has_a_line_for_each_point_and_says_which_was_chosen(tmp_path: Path) -> None:
    asked = [Question(visuals=(Image.from_bytes(b"1"),), text="?", answers=("y",), options={})] * 2
    all_, cheap = build_figures(
        [measured(point("", kind=NO_REDUCTION), "11", 144.0), measured(point("8"), "10")], Comparison(asked)
    )
    write_csv([all_, cheap], [cheap, all_], cheap, tmp_path / "points.csv")
    rows = list(csv.DictReader((tmp_path / "points.csv").open()))
    assert [row["accuracy_percent"] for row in rows] == ["100.00", "50.00"]
    assert [row["chosen"] for row in rows] == ["0", "1"]
    assert rows[1]["accuracy_less_no_reduction_percent"] == "-50.00"
    assert rows[0]["visual_tokens_average_over_layers"] == "144"


@pytest.mark.parametrize(
    ("budget", "value"), [("avg:11.12%", TargetAverage(0.1112)), ("33%", Ratio(0.33)), ("96", TokensPerTile(96))]
)
def test_services_started_with_the_file_do_what_the_point_did(
    tmp_path: Path, budget: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (HERE, Deployment(shallow_layer=1, window=3, prune_layers=(2, 4))):
        chosen = point(budget, deployment=place, rater=Rater.TEXT_MEAN, local_share=0.25)
        file = tmp_path / "settings.toml"
        file.write_text(settings_text(chosen, ["Written by: vscan tune", "", 'with "quotes"']))
        assert tomllib.loads(file.read_text()) == settings_of(chosen)
        read = read_settings(file)
        encoder, decoder = (
            load_settings(EncoderSettings, read.of("encoder")),
            load_settings(DecoderSettings, read.of("decoder")),
        )
        assert (encoder.shallow_layer, encoder.window) == place.encoder
        spec = encoder.reduction
        assert (spec.method, spec.budget, spec.local_share, spec.merge) == (ReductionMethod.VSCAN, value, 0.25, True)
        assert (decoder.prune_layers, decoder.prune_rater) == (place.prune_layers, Rater.TEXT_MEAN)


def test_a_split_of_the_budget_is_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(settings_text(replace(point("14.8%"), keep=0.5), []))
    assert load_settings(DecoderSettings, read_settings(tmp_path / "s.toml").of("decoder")).prune_keep == 0.5


def test_what_was_typed_cannot_leave_the_comments(tmp_path: Path) -> None:
    odd = "--data a\nb\x00\r\x7f\u2028\udcff ü 'q'"
    file = tmp_path / "s.toml"
    file.write_text(settings_text(point(), [odd]), encoding="utf-8")
    assert tomllib.loads(file.read_text(encoding="utf-8")) == settings_of(point())
    assert file.read_text(encoding="utf-8").startswith("# --data a\\nb\\x00\\r\\x7f\\u2028\\udcff ü 'q'\n")


def test_no_reduction_and_no_pruning_layer_can_be_written(tmp_path: Path) -> None:
    place = Deployment(shallow_layer=1, window=3, prune_layers=())
    whole = point("", kind=NO_REDUCTION, deployment=place, method=ReductionMethod.NONE, rater=Rater.NONE)
    (tmp_path / "s.toml").write_text(settings_text(whole, []))
    read = read_settings(tmp_path / "s.toml")
    assert load_settings(EncoderSettings, read.of("encoder")).reduction_method is ReductionMethod.NONE
    decoder = load_settings(DecoderSettings, read.of("decoder"))
    assert (decoder.prune_layers, decoder.prune_rater) == ((), Rater.NONE)
