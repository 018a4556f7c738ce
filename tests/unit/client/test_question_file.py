"""The input and the output of `ask-many`."""

import json
from pathlib import Path

import pytest

from vscan.errors import InvalidArgument, Unavailable
from vscan_client.cli.answer_file import AnswerFile, read_answers
from vscan_client.cli.question_file import BadLine, QuestionLine, read_questions
from vscan_client.cli.questions import QuestionOptions


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_lines_become_questions(tmp_path: Path) -> None:
    path = written(
        tmp_path / "q.jsonl",
        {"id": 1, "image": "a.png", "question": "what?"},
        "",
        {
            "id": "b",
            "images": ["a.png", "b.png"],
            "question": "which?",
            "budget": 96,
            "stop": "x",
            "temperature": 1,
            "local_share": 0.5,
            "merge": False,
            "positions": "keep",
            "logprobs": 2,
            "ignore_eos": True,
            "min_p": 0.1,
            "repetition_penalty": 1.5,
            "presence_penalty": -1,
            "frequency_penalty": 2,
            "stop_token_ids": [3, 4],
            "json_schema": {"enum": ["ja", "é"]},
            "meta": [1],
        },
        {"id": 3, "video": "c.gif", "image": "a.png", "question": "then?", "frames": 4},
        {"id": 4, "videos": ["c.gif", "d.mp4"], "question": "same?", "fps": 2},
    )
    asked = QuestionOptions(
        budget="96",
        stop=("x",),
        temperature=1.0,
        local_share=0.5,
        merge=False,
        positions="keep",
        logprobs=2,
        ignore_eos=True,
        min_p=0.1,
        repetition_penalty=1.5,
        presence_penalty=-1.0,
        frequency_penalty=2.0,
        stop_token_ids=(3, 4),
        json_schema='{"enum": ["ja", "é"]}',
    )
    assert read_questions(path) == [
        QuestionLine(1, ("a.png",), "what?", QuestionOptions()),
        QuestionLine("b", ("a.png", "b.png"), "which?", asked, [1]),
        QuestionLine(3, ("a.png",), "then?", QuestionOptions(frames=4), videos=("c.gif",)),
        QuestionLine(4, (), "same?", QuestionOptions(fps=2.0), videos=("c.gif", "d.mp4")),
    ]


GOOD = {"id": 1, "image": "a.png", "question": "what?"}


@pytest.mark.parametrize(
    ("line", "identity", "field"),
    [
        ("{", "line:1", "line"),
        ("[]", "line:1", "line"),
        ({**GOOD, "id": None}, "line:1", "id"),
        ({**GOOD, "id": True}, "line:1", "id"),
        ({**GOOD, "question": ""}, 1, "question"),
        ({**GOOD, "images": ["a"]}, 1, "image"),
        ({"id": 1, "question": "what?"}, 1, "image"),
        ({"id": 1, "images": [], "question": "what?"}, 1, "images"),
        ({"id": 1, "images": ["a", 2], "question": "what?"}, 1, "images"),
        ({**GOOD, "video": "a.gif", "videos": ["b.gif"]}, 1, "video"),
        ({"id": 1, "videos": [], "image": "a.png", "question": "what?"}, 1, "videos"),
        ({"id": 1, "video": 3, "question": "what?"}, 1, "videos"),
        ({**GOOD, "frames": 1.5}, 1, "frames"),
        ({**GOOD, "fps": "2"}, 1, "fps"),
        ({**GOOD, "max_tokens": 3}, 1, "max_tokens"),
        ({**GOOD, "max_new_tokens": "3"}, 1, "max_new_tokens"),
        ({**GOOD, "max_new_tokens": -3}, 1, "max_new_tokens"),
        ({**GOOD, "seed": 1.5}, 1, "seed"),
        ({**GOOD, "temperature": True}, 1, "temperature"),
        ({**GOOD, "merge": 1}, 1, "merge"),
        ({**GOOD, "logprobs": 0.5}, 1, "logprobs"),
        ({**GOOD, "stop": [1]}, 1, "stop"),
        ({**GOOD, "report_kept": 1}, 1, "report_kept"),
        ({**GOOD, "min_p": "0.1"}, 1, "min_p"),
        ({**GOOD, "stop_token_ids": [True]}, 1, "stop_token_ids"),
        ({**GOOD, "stop_token_ids": 3}, 1, "stop_token_ids"),
        ({**GOOD, "json_schema": ["x"]}, 1, "json_schema"),
        ({**GOOD, "regex": 3}, 1, "regex"),
        ({**GOOD, "samples": -1}, 1, "samples"),
        ({**GOOD, "priority": 1.5}, 1, "priority"),
        ({**GOOD, "priority": True}, 1, "priority"),
    ],
)
def test_a_line_that_is_no_question_says_why(tmp_path: Path, line: object, identity: object, field: str) -> None:
    (bad,) = read_questions(written(tmp_path / "q.jsonl", line))
    assert isinstance(bad, BadLine)
    assert (bad.id, bad.error.field) == (identity, field)


def test_ids_are_there_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"q\.jsonl:3: the id .* is there twice, in line 1 too"):
        read_questions(
            written(tmp_path / "q.jsonl", "\N{ZERO WIDTH NO-BREAK SPACE}" + json.dumps(GOOD), "", GOOD)
        )  # with a mark, as of editors


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"q\.jsonl: No such file"):
        read_questions(tmp_path / "q.jsonl")


def test_a_run_goes_on_where_the_last_one_was_broken_off(tmp_path: Path) -> None:
    out = written(
        tmp_path / "a.jsonl", {"id": 1, "text": "yes"}, {"id": 2, "error": {"name": "Unavailable"}}, {"id": "3", "text": ""}
    )
    with out.open("a") as file:
        file.write('{"id": 4, "te')
    with AnswerFile(out) as answers:
        assert answers.answered == {1, "3"}
        answers.add_error(2, Unavailable("away"), {"n": 1})
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"id": 1, "text": "yes"},
        {"id": "3", "text": ""},
        {"id": 2, "error": {"name": "Unavailable", "message": "away"}, "meta": {"n": 1}},
    ]
    assert list(tmp_path.iterdir()) == [out]


def test_a_last_line_without_its_newline_was_not_written_to_the_end(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    out.write_text('{"id": 1, "text": "yes"}')
    with AnswerFile(out) as answers:
        assert answers.answered == frozenset()
    assert out.read_text() == ""


@pytest.mark.parametrize("content", ['{"id": 1, "image": "a.png", "question": "?"}\n', "notes\n", "[]\n"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    out = tmp_path / "questions.jsonl"
    out.write_text(content)
    with pytest.raises(InvalidArgument, match="left alone"):
        AnswerFile(out)
    assert out.read_text() == content


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"out: .*No such file"):
        AnswerFile(tmp_path / "gone" / "a.jsonl")


SETTINGS = {"budget": "96", "layers": [4]}


def test_answers_under_settings_begin_with_them(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with AnswerFile(out, SETTINGS) as answers:
        answers.add_error(1, Unavailable("away"), None)
    with out.open("a") as file:
        file.write('{"id": 2, "text": "no"}\n{"id": 3')
    with AnswerFile(out, SETTINGS) as answers:
        assert answers.answered == {2}
    assert [json.loads(line) for line in out.read_text().splitlines()] == [{"settings": SETTINGS}, {"id": 2, "text": "no"}]
    assert list(read_answers(out)) == [{"id": 2, "text": "no"}]


def test_settings_that_were_not_written_to_the_end_are_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    out.write_text('{"settings": {"bud')
    with AnswerFile(out, SETTINGS) as answers:
        assert answers.answered == frozenset()
    assert json.loads(out.read_text()) == {"settings": SETTINGS}


def test_other_settings_are_told_and_the_file_is_left_alone(tmp_path: Path) -> None:
    out = written(tmp_path / "a.jsonl", {"settings": SETTINGS}, {"id": 2, "text": "no"})
    before = out.read_text()
    with pytest.raises(
        InvalidArgument, match=r'budget was "96", is "64"; layers was \[4\], is not given; keep was not given, is 8'
    ):
        AnswerFile(out, {"budget": "64", "keep": 8})
    assert out.read_text() == before


@pytest.mark.parametrize(
    ("lines", "settings"),
    [
        ([{"settings": SETTINGS}], None),
        ([{"id": 1, "text": "yes"}], SETTINGS),
        ([{"id": 1, "error": {"name": "Unavailable"}}], SETTINGS),
    ],
)
def test_answers_of_another_command_are_left_alone(
    tmp_path: Path, lines: list[object], settings: dict[str, object] | None
) -> None:
    out = written(tmp_path / "a.jsonl", *lines)
    before = out.read_text()
    with pytest.raises(InvalidArgument, match="of another command"):
        AnswerFile(out, settings)
    assert out.read_text() == before
