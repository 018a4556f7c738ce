"""RefCOCO: its files in three forms, and hand-scored answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from studies.evaluation.boxes import BoxForm
from studies.evaluation.catalogue import find_task
from studies.evaluation.task import Item, Scores, Sources, read_items
from studies.evaluation.tasks.refcoco import Region
from vscan.errors import InvalidArgument

DATA = Path(__file__).parents[3] / "data" / "eval" / "refcoco"
Read = Callable[..., Sequence[Item[Region]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a file, with images beside that are there."""
    for number in (71, 72):
        (tmp_path / f"COCO_train2014_{number:012}.jpg").touch()

    def read(questions: Path | str, form: str = "padded-unit", task: str = "refcoco") -> Sequence[Item[Region]]:
        return read_items(find_task(task), Sources(questions=DATA / questions, images=tmp_path, box_form=form))

    return read


def score(items: Sequence[Item[Region]], *answers: str, tokens: Mapping[Any, Sequence[int]] | None = None) -> Scores:
    """Of answers in the items' order."""
    by_id = {item.id: answer for item, answer in zip(items, answers, strict=True)}
    scores = find_task("refcoco").score_run(items, by_id, tokens or {})
    assert scores is not None
    return scores


@pytest.mark.parametrize("name", ["refcoco_testA.jsonl", "REC_refcoco_testA.jsonl", "finetune_refcoco_testA.json"])
def test_all_forms_say_the_same(read: Read, name: str, tmp_path: Path) -> None:
    item = read(name)[0]
    assert item.prompt.endswith("the region this sentence describes: the left square")
    assert item.images[0].path == tmp_path / "COCO_train2014_000000000071.jpg"
    assert item.label == Region((100, 50, 300, 150), (400, 200), BoxForm.PADDED_UNIT)


def test_a_file_of_several_benchmarks_gives_each_its_own(read: Read) -> None:
    assert [item.id for item in read("finetune_refcoco_testA.json")] == [0]
    assert [item.id for item in read("finetune_refcoco_testA.json", task="refcoco+")] == [1]


def test_qwen_is_asked_as_its_authors_ask(read: Read) -> None:
    item = read("refcoco_testA.jsonl", "resized-pixels")[1]
    assert item.prompt == "Locate the star, output its bbox coordinates using JSON format."


def test_half_of_the_union_is_enough_and_less_is_not(read: Read) -> None:
    items = read("refcoco_testA.jsonl", "pixels")
    scores = score(items, "[100, 50, 200, 150]", "[300, 0, 400, 49]", "[0, 0, 100, 100]")
    assert scores.value == pytest.approx(100 * 2 / 3)  # exactly 0.5, then 0.49, then 1
    assert scores.further["mean IoU"] == pytest.approx(100 * (0.5 + 0.49 + 1) / 3)
    assert scores.n == 3


def test_what_is_wrong_with_a_box_is_counted(read: Read) -> None:
    items = read("refcoco_testA.jsonl", "unit")
    scores = score(items, "on the left", "[1.0, 0.5, 0.75, 0.0]", "[2.0, 0.0, 2.5, 0.25] or [0, 0, 0.5, 0.25]")
    assert scores.value == 0
    assert dict(scores.counts) == {
        "answers without a box (wrong)": 1,
        "answers with several boxes (the first counts)": 1,
        "boxes without area, or with swapped corners (wrong)": 1,
        "boxes beside the image (wrong)": 1,
    }


def test_pixels_of_what_the_encoder_saw_are_taken_back(read: Read) -> None:
    items = read("refcoco_testA.jsonl", "resized-pixels")
    # 400 x 200 px at 8 tokens was 112 x 56; 200 x 400 at 98 was 196 x 392.
    answers = ('[{"bbox_2d": [28, 14, 84, 42]}]', '[{"bbox_2d": [84, 0, 112, 28]}]', '[{"bbox_2d": [0, 0, 98, 98]}]')
    assert score(items, *answers, tokens={0: (8,), 1: (8,), 2: (98,)}).value == 100
    assert score(items, *answers, tokens={0: (98,), 1: (98,), 2: (98,)}).value == pytest.approx(100 / 3)
    with pytest.raises(InvalidArgument, match="0: an image of 400 x 200 px does not make 97 tokens"):
        score(items, *answers, tokens={0: (97,), 1: (8,), 2: (98,)})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bbox": [300, 50, 100, 150]}, "jsonl:1: bbox: [300.0, 50.0, 100.0, 150.0] has no area"),
        ({"bbox": [1, 2, 3]}, "jsonl:1: bbox: four numbers are needed"),
        ({"bbox": "[1, 2, 3, 4]"}, "jsonl:1: bbox: four numbers are needed"),
        ({"width": None}, "jsonl:1: width: a whole number is needed"),
        ({"sent": ""}, "jsonl:1: sent"),
        ({"image": "a/../.."}, "jsonl:1: image"),
        ({"image": "other.jpg"}, "1 of 1 files asked about are not there"),
    ],
)
def test_a_bad_file_is_named(read: Read, tmp_path: Path, change: dict[str, Any], named: str) -> None:
    row = json.loads((DATA / "refcoco_testA.jsonl").read_text().splitlines()[0])
    (tmp_path / "bad.jsonl").write_text(json.dumps(row | change) + "\n")
    with pytest.raises(InvalidArgument) as caught:
        read(tmp_path / "bad.jsonl")
    assert named in str(caught.value)


def test_a_phrase_without_its_annotation_is_named(read: Read, tmp_path: Path) -> None:
    document = json.loads((DATA / "finetune_refcoco_testA.json").read_text())
    (tmp_path / "bad.json").write_text(json.dumps(document | {"annotations": []}))
    with pytest.raises(InvalidArgument, match=r"images\[0\]: id: no annotation has image_id 0"):
        read(tmp_path / "bad.json")


def test_the_form_of_boxes_must_be_known(read: Read) -> None:
    with pytest.raises(InvalidArgument, match="box-form: 'miles', limit resized-pixels"):
        read("refcoco_testA.jsonl", "miles")
