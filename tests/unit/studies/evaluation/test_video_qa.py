"""Questions about videos: files, exact match, what goes to a judge and what comes back, TGIF-QA's own rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from studies.evaluation.catalogue import find_task
from studies.evaluation.task import Item, Scores, Sources, read_items
from studies.evaluation.tasks.tgif_qa import first_count
from vscan.errors import InvalidArgument

DATA = Path(__file__).parents[3] / "data" / "eval"
ANSWERS = ("black bars", "yes", "three")
Read = Callable[..., Sequence[Item[Any]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file, with videos beside that are there."""
    for name in ("clip1.mp4", "v_clip2.mkv", "clip3.gif", "clip4.gif"):
        (tmp_path / name).touch()

    def read(questions: str, annotations: str | None = None, task: str = "activitynet-qa", **more: Any) -> Sequence[Item[Any]]:
        labels = None if annotations is None else DATA / annotations
        sources = Sources(questions=DATA / questions, images=tmp_path, annotations=labels, **more)
        return read_items(find_task(task), sources)

    return read


def score(items: Sequence[Item[Any]], *answers: str, task: str = "activitynet-qa") -> Scores:
    """Of answers in the items' order."""
    scores = find_task(task).score(items, by_id(items, answers))
    assert scores is not None
    return scores


def by_id(items: Sequence[Item[Any]], answers: Sequence[str] = ANSWERS) -> dict[Any, str]:
    """Answers by question."""
    return {item.id: answer for item, answer in zip(items, answers, strict=True)}


def judged(items: Sequence[Item[Any]], path: Path, answers: Sequence[str] = ANSWERS) -> Scores:
    """Of a file of verdicts."""
    return find_task("activitynet-qa").judged(items, by_id(items, answers), path)


def test_questions_and_answers_are_joined_by_their_ids(read: Read, tmp_path: Path) -> None:
    first, _, last = read("video_qa/test_q.json", "video_qa/test_a.json")
    assert (first.id, first.prompt, first.label.answer) == ("v_clip1_0", "what is moving?", "bars")
    assert first.videos == (tmp_path / "clip1.mp4",)
    assert last.videos == (tmp_path / "v_clip2.mkv",)  # ActivityNet's files may have a prefix


def test_a_video_that_is_not_there_or_there_twice_is_named(read: Read, tmp_path: Path) -> None:
    for clip in tmp_path.iterdir():
        clip.rename(tmp_path / f"other-{clip.name}")
    with pytest.raises(InvalidArgument, match=r"2 of 2 files asked about are not there: .*clip1\{\.mp4,.*, .*clip2\{\.mp4"):
        read("video_qa/test_q.json", "video_qa/test_a.json")  # all that is missing at once
    (tmp_path / "clip2.avi").touch()
    (tmp_path / "v_clip2.mkv").touch()
    with pytest.raises(InvalidArgument, match=r"\[2\]: video_name: both clip2.avi and v_clip2.mkv are there"):
        read("video_qa/test_q.json", "video_qa/test_a.json")


def test_exact_match_does_not_have_the_official_name(read: Read) -> None:
    items = read("video_qa/test_q.json", "video_qa/test_a.json")
    scores = score(items, "Bars.", "no, it is not", " 3\n")
    assert scores.metric == "exact match (not the official score)"
    assert scores.value == pytest.approx(100 * 2 / 3)
    assert scores.categories["type"]["3"].value == 0
    assert "judge" in scores.notes[0]


def test_what_goes_to_the_judge_is_what_its_script_reads(read: Read, tmp_path: Path) -> None:
    items = read("video_qa/test_q.json", "video_qa/test_a.json", prompt_suffix="Answer briefly.")
    find_task("activitynet-qa").export(items, by_id(items), tmp_path / "pred.json")
    first = json.loads((tmp_path / "pred.json").read_text().splitlines()[0])
    assert first == {"id": "v_clip1_0", "question": "what is moving?", "answer": "bars", "pred": "black bars"}


def test_a_judges_verdicts_are_counted_as_the_fields_script_counts_them(read: Read) -> None:
    scores = judged(read("video_qa/test_q.json", "video_qa/test_a.json"), DATA / "video_qa" / "results.json")
    assert scores.value == pytest.approx(100 * 2 / 3)
    assert scores.further == {"mean score of 0 to 5 (judge's)": 3.0}  # 5, 0, and 4.8 cut to 4
    assert scores.counts["yes"] == 2


def test_verdicts_may_be_numbered_lines_and_say_neither(read: Read, tmp_path: Path) -> None:
    items = read("video_qa/test_q.json", "video_qa/test_a.json")
    names, said, points = ("v_clip1_0_0", "v_clip1_1", "v_clip2_0"), ("yes, no doubt", "unclear", "no"), (3, 1, 0)
    lines = [json.dumps({"id": n, "pred": s, "score": p}) for n, s, p in zip(names, said, points, strict=True)]
    (tmp_path / "v.jsonl").write_text("\n".join(lines) + "\n")
    scores = judged(items, tmp_path / "v.jsonl")
    assert scores.value == 50  # of the two that say yes or no
    assert scores.further == {"mean score of 0 to 5 (judge's)": pytest.approx(4 / 3)}
    assert scores.counts["verdicts that say neither (not in the accuracy)"] == 1


@pytest.mark.parametrize(
    ("said", "mean", "value", "unread", "odd"),
    [
        ({"pred": "yes", "score": "4"}, 9 / 3, 200 / 3, 0, 0),
        ({"pred": "yes", "score": "4.8"}, 5 / 3, 50, 1, 0),  # int() takes no such text: neither its score nor its yes counts
        ({"pred": "yes"}, 5 / 3, 50, 1, 0),
        ({"score": 4}, 9 / 3, 50, 0, 0),  # the score was counted before the word was missed
        ("yes, 4", 5 / 3, 50, 1, 0),
        ({"pred": "Yes", "score": 9}, 14 / 3, 200 / 3, 0, 1),
    ],
)
def test_verdicts_in_other_forms_count_as_in_video_llavas_script(
    read: Read, tmp_path: Path, said: Any, mean: float, value: float, unread: int, odd: int
) -> None:
    others = {"v_clip1_0": [{"pred": "yes", "score": 5}], "v_clip1_1": [{"pred": "no", "score": 0}]}
    (tmp_path / "r.json").write_text(json.dumps({**others, "v_clip2_0": [said]}))
    scores = judged(read("video_qa/test_q.json", "video_qa/test_a.json"), tmp_path / "r.json")
    assert scores.value == pytest.approx(value)
    assert scores.further == {"mean score of 0 to 5 (judge's)": pytest.approx(mean)}
    assert scores.counts["verdicts whose score cannot be read (0 in the mean)"] == unread
    assert scores.counts["scores that are not 0 to 5 (in the mean as they are)"] == odd


@pytest.mark.parametrize(
    ("name", "pair", "named"),
    [
        ("v_clip2_0", None, "no verdict on 'v_clip2_0'; 1 of 3 have none"),
        ("v_clip2_0", {"pred": "yes"}, "v_clip2_0: verdict: a list of the judge's words and of what was judged is needed"),
        (
            "v_clip2_0",
            [{"pred": "yes", "score": 4}, {"pred": "four"}],
            "'v_clip2_0': the verdict is on 'four', this run has 'three'",
        ),
    ],
)
def test_verdicts_that_do_not_belong_to_the_run_are_refused(
    read: Read, tmp_path: Path, name: str, pair: Any, named: str
) -> None:
    results = json.loads((DATA / "video_qa" / "results.json").read_text()) | {name: pair}
    (tmp_path / "r.json").write_text(json.dumps({key: value for key, value in results.items() if value is not None}))
    with pytest.raises(InvalidArgument) as caught:
        judged(read("video_qa/test_q.json", "video_qa/test_a.json"), tmp_path / "r.json")
    assert named in str(caught.value)


def test_without_annotations_there_is_nothing_to_judge_by(read: Read, tmp_path: Path) -> None:
    items = read("video_qa/test_q.json")
    assert all(item.reference is None for item in items)
    with pytest.raises(InvalidArgument, match="give them by --annotations"):
        find_task("activitynet-qa").export(items, by_id(items), tmp_path / "pred.json")


def test_tgifs_open_questions_are_judged_as_the_others(read: Read, tmp_path: Path) -> None:
    (tmp_path / "clip2.gif").touch()
    items = read("video_qa/test_q.json", "video_qa/test_a.json", "tgif-qa")
    assert score(items, *ANSWERS, task="tgif-qa").metric == "exact match (not the official score)"
    assert find_task("tgif-qa").judged(items, by_id(items), DATA / "video_qa" / "results.json").value == pytest.approx(200 / 3)


def test_tgifs_frame_questions_are_right_where_the_word_is(read: Read) -> None:
    items = read("tgif_qa/Test_frameqa_question.csv", task="tgif-qa")
    assert items[0].prompt == "how many bars are moving ?\nAnswer the question using a single word or phrase."
    scores = score(items, "2", "Bar.", "grey", task="tgif-qa")
    assert scores.metric == "FrameQA accuracy"
    assert scores.value == pytest.approx(100 * 2 / 3)  # the label says two
    assert {name: kind.value for name, kind in scores.categories["type"].items()} == {"color": 100, "number": 0, "object": 100}


def test_tgifs_actions_are_one_of_five(read: Read) -> None:
    items = read("tgif_qa/Test_action_question.csv", task="tgif-qa")
    assert items[0].prompt.splitlines()[:3] == ["What does the bar do 3 times ?", "A. blink", "B. jump"]
    scores = score(items, "B. jump", "it jumps", task="tgif-qa")
    assert (scores.metric, scores.value) == ("action accuracy", 50)
    assert scores.counts["answers without an option (wrong)"] == 0  # "jump" is one, though not the right one
    assert score(items, "I do not know", "A", task="tgif-qa").counts["answers without an option (wrong)"] == 1
    (transition,) = read("tgif_qa/Test_transition_question.csv", task="tgif-qa")
    assert score([transition], "E", task="tgif-qa").value == 100


def test_tgifs_counts_are_scored_by_their_distance(read: Read) -> None:
    items = read("tgif_qa/Test_count_question.csv", task="tgif-qa")
    scores = score(items, "Five times", "It blinks 25 times.", "often", task="tgif-qa")
    # 5 for 3; 25, cut to 10, for 10; none, so 1, for 2
    assert scores.value == pytest.approx((4 + 0 + 1) / 3)
    assert scores.further == {"accuracy in %": pytest.approx(100 / 3)}
    assert scores.counts["answers without a number (count as 1)"] == 1


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("3", 3),
        ("Three.", 3),
        ("twice", 2),
        ("about 12 times", 12),
        ("someone waves", None),
        ("", None),
        ("tenth", None),
        ("9" * 5000, int("9" * 100)),
    ],
)
def test_the_first_number_counts(answer: str, count: int | None) -> None:
    assert first_count(answer) == count


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("clip3\tq ?\t3\tSONG1\t1", "vid_id: 'SONG1' begins with none of FRAMEQA, ACTION, TRANS, COUNT"),
        ("clip3\tq ?\tthree\tCOUNT1\t1", 'answer: "three" where a whole number is needed'),
        ("../clip3\tq ?\t3\tCOUNT1\t1", "gif_name: '../clip3' is not the name of a file"),
    ],
)
def test_a_bad_row_is_named(read: Read, tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"gif_name\tquestion\tanswer\tvid_id\tkey\n{line}\n")
    with pytest.raises(InvalidArgument) as caught:
        read(str(path), task="tgif-qa")
    assert f"{path}:2: {named}" in str(caught.value)


def test_tgifs_tables_have_no_judge(read: Read) -> None:
    items = read("tgif_qa/Test_count_question.csv", task="tgif-qa")
    with pytest.raises(InvalidArgument, match="scored without a judge"):
        find_task("tgif-qa").judged(items, by_id(items), DATA / "video_qa" / "results.json")
