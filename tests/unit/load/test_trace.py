"""Traces of both forms, and what is said of bad ones: the file, the line, the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.load.trace import read_trace
from vscan.errors import InvalidArgument

JSON = """\
{"at_s": 0, "image": "a.png", "question": "what is it?", "answer_tokens": 4}

{"at_s": 0.5, "images": ["a.png", 7], "question_tokens": 6}
{"at_s": 0.5, "question": "no image"}
"""
TABLE = """\
at_s,images,question,question_tokens,answer_tokens
0,a.png,what is it?,,4
0.5,a.png;7,,6,
0.5,,no image,,
"""


@pytest.mark.parametrize(("name", "text"), [("t.jsonl", JSON), ("t.csv", TABLE)])
def test_both_forms_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / name).write_text(text)
    trace = read_trace(tmp_path / name, answer_tokens=9)
    assert trace.images == [tmp_path / "a.png", 7]
    asks = trace.asks()
    assert [(ask.due_s, ask.images, ask.answer_tokens) for ask in asks] == [(0.0, (0,), 4), (0.5, (0, 1), 9), (0.5, (), 9)]
    assert [asks[0].question, len(asks[1].question.split()), asks[2].question] == ["what is it?", 6, "no image"]
    assert [ask.due_s for ask in trace.without_times().asks(3)] == [None] * 3


def test_what_warms_up_is_like_the_trace_and_about_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"at_s": 0, "images": [5, 6], "question": "what is it?"}\n{"at_s": 1, "question": "b"}\n'
    )
    trace = read_trace(tmp_path / "t.jsonl", answer_tokens=2)
    assert trace.asks(0) == trace.recorded
    warm = trace.asks(1)
    assert [len(ask.images) for ask in warm] == [2, 0]
    assert {trace.sources[image] for ask in warm for image in ask.images}.isdisjoint(trace.images)
    assert [len(ask.question.split()) for ask in warm] == [3, 1]
    assert warm[0].question != "what is it?"


def test_a_mix_of_budgets_holds_for_a_trace_too(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"at_s": 0, "question": "x"}\n' * 400)
    styles = [ask.style for ask in read_trace(tmp_path / "t.jsonl", answer_tokens=1, mix=(3.0, 1.0)).asks()]
    assert 250 < styles.count(0) < 350
    assert set(styles) == {0, 1}


@pytest.mark.parametrize(("name", "text"), [("t.CSV", TABLE), ("t.jsonl", JSON.replace("what is it?", "what\u2028is it?"))])
def test_files_of_spreadsheets_and_texts_with_odd_line_ends_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / name).write_text("\ufeff" + text)
    assert [len(ask.images) for ask in read_trace(tmp_path / name, answer_tokens=9).asks()] == [1, 2, 0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "t.jsonl",
            '{"at_s": 1, "question": "x"}\n{"at_s": 0.5, "question": "x"}',
            ":2: at_s: 0.5, limit at least 1, the time",
        ),
        ("t.jsonl", '{"at_s": "soon", "question": "x"}', ":1: at_s: 'soon' is not a number of seconds"),
        ("t.jsonl", '{"at_s": -1, "question": "x"}', ":1: at_s: -1, limit at least 0"),
        ("t.jsonl", '{"at_s": NaN, "question": "x"}', ":1: at_s: nan, limit at least 0"),
        ("t.jsonl", '{"question": "x"}', ":1: at_s: None is not a number"),
        ("t.jsonl", '\n{"at_s": 0', ":2: not JSON: "),
        ("t.jsonl", "[1]", ":1: not a JSON object"),
        ("t.jsonl", '{"at_s": 0, "prompt": "x"}', ":1: unknown field 'prompt', limit at_s, image, images, question"),
        ("t.jsonl", '{"at_s": 0, "image": "b.png", "question": "x"}', "b.png is not a file"),
        ("t.jsonl", '{"at_s": 0, "image": -1, "question": "x"}', ":1: images: -1 is neither a path nor an id from 0"),
        ("t.jsonl", '{"at_s": 0, "image": 1, "images": [2], "question": "x"}', ":1: has both image and images"),
        ("t.jsonl", '{"at_s": 0}', ":1: needs one of question and question_tokens"),
        ("t.jsonl", '{"at_s": 0, "question": "x", "question_tokens": 3}', ":1: needs one of question and question_tokens"),
        ("t.jsonl", '{"at_s": 0, "question": "x", "answer_tokens": 0}', ":1: answer_tokens: 0, limit a whole number, 1 to"),
        ("t.csv", "at_s,question\n0,x\n1,x,y\n", ":3: more values than columns"),
        ("t.csv", "at_s,question,answer_tokens\n0,x,many\n", ":2: answer_tokens: 'many', limit a whole number"),
        ("t.csv", "at_s,question\n", "no requests"),
        ("t.csv", "at_s,question\n0," + "x" * 200_000, ":2: not CSV: "),
        ("t.csv", "at_s,image,question\n0," + "9" * 5000 + ",x\n", "is not a file"),
        ("t.csv", "at_s,question,answer_tokens\n0,x," + "9" * 5000 + "\n", ":2: answer_tokens: '999"),
        ("t.jsonl", '{"at_s": 1' + "0" * 400 + ', "question": "x"}', ":1: at_s: 1000"),
        ("t.jsonl", '{"at_s": 0, "image": 1' + "0" * 400 + ', "question": "x"}', ":1: images: 1000"),
        ("t.jsonl", '{"at_s": 0, "question": "x", "images": ' + "[" * 100_000, ":1: not JSON: "),
    ],
)
def test_a_bad_trace_is_named_with_file_line_and_field(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        read_trace(tmp_path / name, answer_tokens=None)
    assert str(tmp_path) in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"nothing\.csv: cannot be read"):
        read_trace(tmp_path / "nothing.csv", answer_tokens=None)
