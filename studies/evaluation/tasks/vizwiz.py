"""VizWiz: what blind people asked about photographs they took; many cannot be answered.

Rule: the release's `vqaEval.py`: VQA accuracy of the normalised answer, over labels as they are in the file. What is scored
is the answer as it would be handed in: LLaVA's `scripts/convert_vizwiz_for_submission.py` passes it through EvalAI's
processor. The release's other task, how sure a model is that a question can be answered, needs a number that is not asked
for here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from studies.evaluation.reading import Row, read_rows
from studies.evaluation.scoring import accuracy, by_category, distinct
from studies.evaluation.task import Item, Scores, Sources, Task
from studies.evaluation.tasks.vqav2 import VqaLabel, people_said
from studies.evaluation.vqa_accuracy import evalai_answer, normalised, vqa_accuracy
from studies.evaluation.writing import write_json
from vscan_client.cli.question_file import Id


class VizWiz(Task[VqaLabel]):
    """VQA accuracy on `val`, where labels are public; `test` is handed in."""

    name = "vizwiz"
    title = "VizWiz"
    forms = (
        "--questions val.json, --images val",
        "--questions test.json or llava_test.jsonl, --images test (no labels: --export)",
    )
    prompt_suffix = (
        "When the provided information is insufficient, respond with 'Unanswerable'.\n"
        "Answer the question using a single word or phrase."
    )
    takes = frozenset({"export"})
    export_form = 'JSON, [{"image": …, "answer": …}], for the VizWiz challenge on EvalAI'

    def read(self, sources: Sources) -> Sequence[Item[VqaLabel]]:
        """Both forms; see `Task.read`."""
        rows = read_rows(sources.questions)
        names = distinct([row.text("image") for row in rows])
        llava = sources.questions.suffix == ".jsonl"
        return [self._item(row, name, sources, llava=llava) for row, name in zip(rows, names, strict=True)]

    def score(self, items: Sequence[Item[VqaLabel]], answers: Mapping[Id, str]) -> Scores:
        """Accuracy over all, and by the type of answer; how many were answered `unanswerable`."""
        given = {item.id: normalised(evalai_answer(answers[item.id])) for item in items}
        points = {item.id: vqa_accuracy(given[item.id], item.label.answers) for item in items}
        return Scores(
            metric="accuracy",
            value=accuracy(points.values()),
            n=len(items),
            categories={"answer type": by_category(items, points, lambda label: label.answer_type)},
            counts={"answered 'unanswerable'": sum(text == "unanswerable" for text in given.values())},
        )

    def export(self, items: Sequence[Item[VqaLabel]], answers: Mapping[Id, str], path: Path) -> None:
        """See `export_form`."""
        write_json(path, [{"image": _image_of(item), "answer": evalai_answer(answers[item.id])} for item in items])

    def _item(self, row: Row, name: str, sources: Sources, *, llava: bool) -> Item[VqaLabel]:
        return Item(
            id=name,
            prompt=self.ask_as_given(row, "text", sources) if llava else self.ask(row.text("question"), sources),
            images=(row.picture("image", sources.images),),
            reference=_label(row) if "answers" in row else None,
        )


def _label(row: Row) -> VqaLabel:
    return VqaLabel(people_said(row), row.optional_text("answer_type") or "")


def _image_of(item: Item[VqaLabel]) -> str:
    (picture,) = item.images
    if picture.path is None:
        raise ValueError(f"{item.id!r} has no file")
    return picture.path.name
