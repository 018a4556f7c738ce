"""RefCOCO, RefCOCO+ and RefCOCOg: the box of what a phrase means.

The releases of Yu et al. (ECCV 2016) and Mao et al. (CVPR 2016) keep the phrases in a pickle, which is not read here. Read are
the forms that the field makes of it: lines of JSON as in Qwen-VL's and Shikra's evaluation, and MDETR's COCO files.

Rule: the share of phrases whose box overlaps the labelled one by an IoU of at least 0.5, as in Qwen-VL's
`eval_mm/evaluate_grounding.py` (Shikra's code asks for more than 0.5). The first box of an answer counts; an answer without
one, or with swapped corners, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from studies.evaluation.boxes import Box, BoxForm, Size, find_boxes, has_area, in_image, overlap, parse_form
from studies.evaluation.reading import Row, read_json, read_rows, rows_by_id, rows_of
from studies.evaluation.scoring import accuracy
from studies.evaluation.task import Item, Scores, Sources, Task
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

ENOUGH = 0.5
# How the families' authors ask for a box: Qwen2.5-VL's notebook on spatial understanding, LLaVA's instruction data.
_LOCATE = "Locate {}, output its bbox coordinates using JSON format."
_REGION = "Please provide the bounding box coordinate of the region this sentence describes: {}"
_PROMPTS: Mapping[BoxForm, str] = dict.fromkeys((BoxForm.PADDED_UNIT, BoxForm.CROPPED_UNIT, BoxForm.UNIT), _REGION)


@dataclass(frozen=True, slots=True)
class Region:
    """The labelled box in pixels of the image, the image's size, and in which form the model names its own box."""

    box: Box
    size: Size
    form: BoxForm


class RefCoco(Task[Region]):
    """Accuracy at an IoU of 0.5.

    Args:
        name: of the benchmark, as files and command line have it.
        splits: in which files the field keeps it.
    """

    max_new_tokens = 128
    takes = frozenset({"box_form"})

    def __init__(self, name: str, title: str, splits: str) -> None:
        self.name, self.title = name, title
        by = "umd" if name == "refcocog" else "unc"  # who made the split
        self.forms = (
            f"--questions {name}_{splits}.jsonl as of Qwen-VL (image, sent, bbox, width, height), --images train2014 of COCO",
            f"--questions REC_{name}_{by}_{splits}.jsonl as of Shikra (img_path, expression, bbox, …), the same images",
            f"--questions finetune_{name}_{splits}.json as of MDETR, the same images",
        )

    def read(self, sources: Sources) -> Sequence[Item[Region]]:
        """All forms; see `Task.read`. `sources.box_form` is needed."""
        form = parse_form(sources.box_form or "")
        rows = self._coco_rows(sources) if _is_coco(sources) else enumerate(read_rows(sources.questions))
        return [self._item(name, row, form, sources) for name, row in rows]

    def score(self, items: Sequence[Item[Region]], answers: Mapping[Id, str]) -> Scores:
        """As `score_run`, for forms that need no count of tokens."""
        return self.score_run(items, answers, {})

    def score_run(self, items: Sequence[Item[Region]], answers: Mapping[Id, str], tokens: Mapping[Id, Sequence[int]]) -> Scores:
        """Accuracy, and the mean IoU.

        Raises:
            InvalidArgument: an image's file has another size than the questions' file says.
        """
        named = {item.id: find_boxes(answers[item.id]) for item in items}
        boxes = {item.id: _placed(item, named[item.id][0], tokens) for item in items if named[item.id]}
        ious = {item.id: overlap(boxes[item.id], item.label.box) if item.id in boxes else 0.0 for item in items}
        images: dict[Id, Box] = {item.id: (0.0, 0.0, item.label.size[0], item.label.size[1]) for item in items}
        return Scores(
            metric="accuracy at IoU 0.5",
            value=accuracy(iou >= ENOUGH for iou in ious.values()),
            n=len(items),
            further={"mean IoU": accuracy(ious.values())},
            counts={
                "answers without a box (wrong)": len(items) - len(boxes),
                "answers with several boxes (the first counts)": sum(len(each) > 1 for each in named.values()),
                "boxes without area, or with swapped corners (wrong)": sum(not has_area(box) for box in boxes.values()),
                "boxes beside the image (wrong)": sum(
                    has_area(box) and not overlap(box, images[name]) for name, box in boxes.items()
                ),
            },
            notes=(f"boxes are read as {items[0].label.form}; --box-form says otherwise",) if items else (),
        )

    def _item(self, name: Id, row: Row, form: BoxForm, sources: Sources) -> Item[Region]:
        file, phrase = (each for each in (_first(row, "image", "img_path"), _first(row, "sent", "expression", "text")))
        prompt = _PROMPTS.get(form, _LOCATE).format(row.text(phrase).strip())
        size = row.integer("width"), row.integer("height")
        return Item(
            id=name,
            prompt=self.ask(prompt, sources),
            images=(row.picture_called(PurePosixPath(row.text(file)).name, file, sources.images),),
            reference=Region(_box(row), size, form),
            where=row.where,
        )

    def _coco_rows(self, sources: Sources) -> Iterator[tuple[Id, Row]]:
        """MDETR's form: an image for each phrase (`caption`), with one annotation, whose box has width and height."""
        document = read_json(sources.questions)
        boxes = rows_by_id(_listed(document, "annotations", sources), "image_id")
        for image in _listed(document, "images", sources):
            name = image.identity("id")
            if image.values.get("dataset_name", self.name) != self.name:
                continue
            if name not in boxes:
                raise image.bad("id", f"no annotation has image_id {name}")
            left, top, width, height = _numbers(boxes[name])
            values = {"image": image.text("file_name"), "sent": image.text("caption")}
            corners = [left, top, left + width, top + height]
            yield name, Row(image.where, {**image.values, **values, "bbox": corners})


def _placed(item: Item[Region], box: Box, tokens: Mapping[Id, Sequence[int]]) -> Box:
    label = item.label
    try:
        return in_image(box, label.form, label.size, next(iter(tokens.get(item.id, ())), 0))
    except ValueError as error:
        raise InvalidArgument("--questions", f"{item.id!r}: {error}: is its width or height wrong?") from error


def _is_coco(sources: Sources) -> bool:
    """Whether the file is one JSON object."""
    return sources.questions.suffix == ".json" and isinstance(read_json(sources.questions), dict)


def _listed(document: Mapping[str, object], name: str, sources: Sources) -> list[Row]:
    return rows_of(document.get(name), f"{sources.questions}: {name}")


def _first(row: Row, *names: str) -> str:
    """The first of these fields that is there; the first of all where none is, for the error."""
    return next((name for name in names if name in row), names[0])


def _box(row: Row) -> Box:
    left, top, right, bottom = box = _numbers(row)
    if not has_area(box):
        raise row.bad("bbox", f"{[left, top, right, bottom]} has no area: left, top, right, bottom are needed")
    return box


def _numbers(row: Row) -> Box:
    value = row.values.get("bbox")
    if not isinstance(value, list) or len(value) != 4 or not all(_is_number(each) for each in value):
        raise row.bad("bbox", "four numbers are needed")
    left, top, right, bottom = map(float, value)
    return left, top, right, bottom


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
