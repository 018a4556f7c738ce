"""TextVQA: questions about text in images, with ten people's answers each.

Rule: VQA accuracy over answers that EvalAI's processor has normalised, labels and prediction alike, as in M4C's
`TextVQAAccuracyEvaluator` and LLaVA's `llava/eval/eval_textvqa.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from studies.evaluation.reading import Row, read_object, read_rows
from studies.evaluation.scoring import accuracy, distinct
from studies.evaluation.task import Item, Scores, Sources, Task
from studies.evaluation.vqa_accuracy import evalai_answer, vqa_accuracy
from studies.evaluation.writing import write_json
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

Labels = Mapping[tuple[str, str], tuple[str, ...]]
_OCR = "Reference OCR token:"


class TextVqa(Task[tuple[str, ...]]):
    """Accuracy on the validation set, version 0.5.1, as it is reported. A reference holds the ten answers."""

    name = "textvqa"
    title = "TextVQA"
    forms = (
        "--questions TextVQA_0.5.1_val.json, --images train_images",
        "--questions llava_textvqa_val_v051_ocr.jsonl --annotations TextVQA_0.5.1_val.json, --images train_images "
        "(its prompts have OCR tokens)",
        "--questions TextVQA_0.5.1_test.json, --images test_images (no labels: --export)",
    )
    prompt_suffix = "Answer the question using a single word or phrase."
    takes = frozenset({"annotations", "export"})
    export_form = 'JSON, [{"question_id": …, "answer": …}], for the TextVQA challenge on EvalAI'

    def read(self, sources: Sources) -> Sequence[Item[tuple[str, ...]]]:
        """Both forms; see `Task.read`."""
        if sources.questions.suffix == ".jsonl":
            rows = read_rows(sources.questions)
            labels = _labels(sources.annotations) if sources.annotations else None
            names = distinct([str(row.identity("question_id")) for row in rows])
            return [self._llava_item(row, name, labels, sources) for row, name in zip(rows, names, strict=True)]
        self.refuse_labels(sources)
        return [self._item(row, sources) for row in read_object(sources.questions).rows("data")]

    def score(self, items: Sequence[Item[tuple[str, ...]]], answers: Mapping[Id, str]) -> Scores:
        """Accuracy over all."""
        points = [
            vqa_accuracy(evalai_answer(answers[item.id]), [evalai_answer(label) for label in item.label]) for item in items
        ]
        return Scores(metric="accuracy", value=accuracy(points), n=len(items))

    def export(self, items: Sequence[Item[tuple[str, ...]]], answers: Mapping[Id, str], path: Path) -> None:
        """See `export_form`. Raises InvalidArgument where questions are named by their images, as in LLaVA's file."""
        if any(isinstance(item.id, str) for item in items):
            raise InvalidArgument("--export", "the file of questions has no question ids; ask those of TextVQA's own file")
        write_json(path, [{"question_id": item.id, "answer": evalai_answer(answers[item.id])} for item in items])

    def _item(self, row: Row, sources: Sources) -> Item[tuple[str, ...]]:
        question = row.text("question")
        if row.values.get("ocr_tokens"):
            question += f"\n{_OCR} {', '.join(row.texts('ocr_tokens'))}"
        return Item(
            id=row.identity("question_id"),
            prompt=self.ask(question, sources),
            images=(row.picture("image_id", sources.images, "{}.jpg"),),
            reference=tuple(row.texts("answers")) if row.values.get("answers") else None,
            where=row.where,
        )

    def _llava_item(self, row: Row, name: str, labels: Labels | None, sources: Sources) -> Item[tuple[str, ...]]:
        reference = None
        if labels is not None:
            key = (str(row.identity("question_id")), _question_of(row.text("text")).lower())
            if key not in labels:
                raise row.bad("text", f"no question {key[1]!r} about {key[0]} in {sources.annotations}")
            reference = labels[key]
        return Item(
            id=name,
            prompt=self.ask_as_given(row, "text", sources),
            images=(row.picture("image", sources.images),),
            reference=reference,
            where=row.where,
        )


def _labels(path: Path) -> Labels:
    """By image and question in lower case: LLaVA's file has the image's name as the question's. Of two that are alike in both
    the last one counts, as in its script.
    """
    return {
        (row.text("image_id"), row.text("question").lower()): tuple(row.texts("answers"))
        for row in read_object(path).rows("data")
    }


def _question_of(prompt: str) -> str:
    """The question in one of the prompts that LLaVA's file may hold.

    `OCR tokens: … Question: QUESTION Short answer:` · `QUESTION⏎Reference OCR token: …⏎suffix` · `Reference OCR token: …⏎
    QUESTION⏎suffix` · `QUESTION⏎suffix`
    """
    short = re.search(r"Question: (.*?) Short answer:", prompt, re.DOTALL) if prompt.startswith("OCR tokens: ") else None
    if short:
        return short[1]
    lines = prompt.split("\n")
    return lines[1] if prompt.startswith(_OCR) and len(lines) > 1 else lines[0]
