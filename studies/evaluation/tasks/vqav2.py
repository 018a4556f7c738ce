"""VQAv2: open questions about COCO's images, with ten people's answers each.

Rule: the challenge's own script (`vqaEval.py` of GT-Vision-Lab's VQA): labels and answer are normalised unless all ten
labels are the same text, then compared as they are. What is scored is the answer as it would be handed in: LLaVA's
`scripts/convert_vqav2_for_submission.py` passes it through EvalAI's processor first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.evaluation.reading import Row, read_object, read_rows, rows_by_id
from studies.evaluation.scoring import accuracy, by_category
from studies.evaluation.task import Item, Scores, Sources, Task
from studies.evaluation.vqa_accuracy import evalai_answer, normalised, plain, vqa_accuracy
from studies.evaluation.writing import write_json
from vscan_client.cli.question_file import Id


@dataclass(frozen=True, slots=True)
class VqaLabel:
    """What the people said, and of which types the question and its answer are."""

    answers: tuple[str, ...]
    answer_type: str = ""
    question_type: str = ""


class Vqav2(Task[VqaLabel]):
    """VQA accuracy on `val2014`, where labels are public; `test-dev2015` and `test2015` are handed in."""

    name = "vqav2"
    title = "VQAv2"
    forms = (
        "--questions v2_OpenEnded_mscoco_val2014_questions.json --annotations v2_mscoco_val2014_annotations.json, "
        "--images val2014",
        "--questions v2_OpenEnded_mscoco_test-dev2015_questions.json, --images test2015 (no labels: --export)",
        "--questions llava_vqav2_mscoco_test-dev2015.jsonl, --images test2015 (no labels: --export)",
    )
    prompt_suffix = "Answer the question using a single word or phrase."
    takes = frozenset({"annotations", "export"})
    export_form = 'JSON, [{"question_id": …, "answer": …}], for the VQA challenge on EvalAI'

    def read(self, sources: Sources) -> Sequence[Item[VqaLabel]]:
        """Both forms; see `Task.read`."""
        labels = _labels(sources.annotations) if sources.annotations else None
        if sources.questions.suffix == ".jsonl":
            return [self._llava_item(row, labels, sources) for row in read_rows(sources.questions)]
        file = read_object(sources.questions)
        # The images of test-dev are a part of those of test.
        form = f"COCO_{file.text('data_subtype').replace('-dev', '')}_{{:012d}}.jpg"
        return [self._item(row, form, labels, sources) for row in file.rows("questions")]

    def score(self, items: Sequence[Item[VqaLabel]], answers: Mapping[Id, str]) -> Scores:
        """Accuracy over all, and by the type of answer and of question."""
        points = {item.id: _points(evalai_answer(answers[item.id]), item.label.answers) for item in items}
        return Scores(
            metric="accuracy",
            value=accuracy(points.values()),
            n=len(items),
            categories={
                "answer type": by_category(items, points, lambda label: label.answer_type),
                "question type": by_category(items, points, lambda label: label.question_type),
            },
        )

    def export(self, items: Sequence[Item[VqaLabel]], answers: Mapping[Id, str], path: Path) -> None:
        """See `export_form`."""
        write_json(path, [{"question_id": item.id, "answer": evalai_answer(answers[item.id])} for item in items])

    def _item(self, row: Row, form: str, labels: Mapping[Id, VqaLabel] | None, sources: Sources) -> Item[VqaLabel]:
        name = row.identity("question_id")
        return Item(
            id=name,
            prompt=self.ask(row.text("question"), sources),
            images=(row.picture_called(form.format(row.integer("image_id")), "image_id", sources.images),),
            reference=_label_of(row, name, labels),
            where=row.where,
        )

    def _llava_item(self, row: Row, labels: Mapping[Id, VqaLabel] | None, sources: Sources) -> Item[VqaLabel]:
        name = row.identity("question_id")
        return Item(
            id=name,
            prompt=self.ask_as_given(row, "text", sources),
            images=(row.picture("image", sources.images),),
            reference=_label_of(row, name, labels),
            where=row.where,
        )


def people_said(row: Row) -> tuple[str, ...]:
    """The texts of the row's `answers`. Raises InvalidArgument where there are none."""
    answers = tuple(answer.plain_text("answer") for answer in row.rows("answers"))
    if not answers:
        raise row.bad("answers", "at least one is needed")
    return answers


def _labels(path: Path) -> dict[Id, VqaLabel]:
    rows = rows_by_id(read_object(path).rows("annotations"), "question_id")
    return {
        name: VqaLabel(
            people_said(row),
            row.optional_text("answer_type") or "",
            row.optional_text("question_type") or "",
        )
        for name, row in rows.items()
    }


def _label_of(row: Row, name: Id, labels: Mapping[Id, VqaLabel] | None) -> VqaLabel | None:
    if labels is None:
        return None
    if name not in labels:
        raise row.bad("question_id", f"{name} has no label in the annotations")
    return labels[name]


def _points(answer: str, labels: Sequence[str]) -> float:
    told = [plain(label) for label in labels]
    if len(set(told)) == 1:
        return vqa_accuracy(answer, told)
    return vqa_accuracy(normalised(answer), [normalised(label) for label in told])
