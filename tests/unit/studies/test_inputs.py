"""What studies look at: drawn scenes, folders of images, and questions in the form of `ask-many`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embedded_model.kinds import KINDS, kinds_of
from embedded_model.questions import FAMILIES
from embedded_model.scenes import MAX_THINGS
from studies.inputs import Inputs, draw_scenes, read_inputs
from tests.support.videos import video
from vscan.errors import InvalidArgument
from vscan.specs import FrameCount

PNG = b"\x89PNG\r\n\x1a\n, as far as names go"


def folder(path: Path, *lines: object, images: int = 3) -> Path:
    for number in range(images):
        (path / f"{number}.png").write_bytes(PNG)
    if lines:
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        (path / "questions.jsonl").write_text(text)
    return path


def read(path: Path, *, count: int = 10, seed: int = 0, with_questions: bool = True) -> Inputs:
    return read_inputs(path, count=count, seed=seed, with_questions=with_questions)


def test_scenes_are_held_out_seeded_and_asked_about_in_turn() -> None:
    first, again, other = draw_scenes(9, 4), draw_scenes(9, 4), draw_scenes(9, 5)
    assert [picture.read() for picture in first.pictures] == [picture.read() for picture in again.pictures]
    assert first.pictures[0].read() != other.pictures[0].read()
    assert first.questions == again.questions
    assert [question.family for question in first.questions] == [*FAMILIES, *FAMILIES[:2]]
    assert all(question.answers for question in first.questions)
    more = draw_scenes(12, 4)
    assert more.questions[:9] == first.questions, "a larger count goes on where a smaller one ends"
    assert [one.read() for one in more.pictures[:9]] == [one.read() for one in first.pictures]


def test_each_patch_of_a_scene_is_of_one_kind() -> None:
    for picture in draw_scenes(12, 0).pictures:
        scene = picture.scene
        assert scene is not None
        kinds = kinds_of(scene)
        assert ((kinds == KINDS.index("objects")) == ((scene.owner >= 0) & (scene.owner < MAX_THINGS))).all()
        assert int((kinds == KINDS.index("letters")).sum()) == len(scene.layout.letters)
        assert (scene.distracts[kinds == KINDS.index("distractors")]).all()
        assert not (scene.distracts[kinds == KINDS.index("ground")]).any()


def test_questions_share_their_images_and_say_what_they_are(tmp_path: Path) -> None:
    data = folder(
        tmp_path,
        {"id": 1, "image": "0.png", "question": "a?", "answer": "yes", "family": "exist"},
        "",
        {"id": "b", "images": ["1.png", "0.png"], "question": "b?", "meta": {"answer": ["2", "two"], "category": "count"}},
        {"id": 3, "video": "2.png", "frames": 4, "question": "c?"},
    )
    inputs = read(data)
    assert [picture.name for picture in inputs.pictures] == ["0.png", "1.png", "2.png"]
    one, two, three = inputs.questions
    assert (one.pictures, one.answers, one.family) == ((0,), ("yes",), "exist")
    assert (two.pictures, two.answers, two.family) == ((1, 0), ("2", "two"), "count")
    assert (three.answers, three.family) == ((), "")
    assert (inputs.pictures[2].is_video, inputs.pictures[2].sampling) == (True, FrameCount(4))
    assert inputs.pictures[0].read() == PNG


def test_of_a_folder_some_are_drawn_by_the_seed(tmp_path: Path) -> None:
    data = folder(tmp_path, images=40)
    (data / "clip").write_bytes(video("gif", 2))  # a GIF is an image unless it is said to be a video
    (data / "clip.mp4").write_bytes(video("mp4 mpeg4", 2))
    everything = read(data, count=100, with_questions=False)
    assert len(everything.pictures) == 42
    assert [picture.name for picture in everything.pictures if picture.is_video] == ["clip.mp4"]
    some, again, other = (read(data, count=9, seed=seed, with_questions=False) for seed in (1, 1, 2))
    names = [picture.name for picture in some.pictures]
    assert len(names) == 9
    assert names == [picture.name for picture in again.pictures] == sorted(names)
    assert names != [picture.name for picture in other.pictures]


def test_a_study_without_questions_takes_the_images_that_a_file_of_questions_names(tmp_path: Path) -> None:
    lines = [{"id": number, "image": f"{number % 2}.png", "question": "?"} for number in range(6)]
    inputs = read(folder(tmp_path, *lines), with_questions=False)
    assert [picture.name for picture in inputs.pictures] == ["0.png", "1.png"]
    assert inputs.questions == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ({"id": 2, "question": "?"}, "image, images, video or videos is needed"),
        ({"id": 2, "image": "0.png", "question": ""}, "question: a text is needed"),
        ({"id": 2, "image": "0.png", "question": "?", "answr": "x"}, "answr: no such field"),
        ({"id": 2, "image": "0.png", "question": "?", "answer": 7}, "answer: a text or a list of texts is needed"),
        ({"id": 2, "image": "0.png", "question": "?", "meta": {"family": ["a"]}}, r'family: \["a"\] is not a text'),
        ({"id": 2, "image": "9.png", "question": "?"}, "9.png: No such file"),
        ({"id": 2, "video": "0.png", "frames": 0, "question": "?"}, "video.sampling.frames"),
        ({"id": 1, "image": "0.png", "question": "?"}, "the id 1 is that of line 1"),
    ],
)
def test_a_bad_line_is_named_by_its_file_and_number(tmp_path: Path, line: object, problem: str) -> None:
    data = folder(tmp_path, {"id": 1, "image": "0.png", "question": "?"}, "", line)
    with pytest.raises(InvalidArgument, match=rf"questions\.jsonl:3: .*{problem}"):
        read(data)


def test_what_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"--data: .*nowhere is not a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(InvalidArgument, match=r"has no questions\.jsonl"):
        read(tmp_path)
    with pytest.raises(InvalidArgument, match="has no image and no video"):
        read(tmp_path, with_questions=False)
    (tmp_path / "questions.jsonl").write_text("\n \n")
    with pytest.raises(InvalidArgument, match=r"questions\.jsonl: no question"):
        read(tmp_path)
    (tmp_path / "questions.jsonl").write_bytes(b"\xff")
    with pytest.raises(InvalidArgument, match=r"questions\.jsonl: not UTF-8"):
        read(tmp_path)
