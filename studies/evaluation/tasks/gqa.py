"""GQA: compositional questions about scene graphs.

Files and rule: the benchmark's own `eval.py` (Hudson and Manning, CVPR 2019): the answer equals the label. LLaVA's
`scripts/convert_gqa_for_eval.py` takes off a full stop at the end and lowers the case before; so does this. Questions that
are not balanced are left out, as `eval.py` leaves them out of the accuracy. Its other measures (consistency, validity,
plausibility, distribution) need scene-graph choices that are no part of the questions' file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from studies.evaluation.reading import Row, read_object, read_rows
from studies.evaluation.scoring import accuracy, by_category
from studies.evaluation.task import Item, Scores, Sources, Task
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id


@dataclass(frozen=True, slots=True)
class GqaLabel:
    """An answer, and the types that the release gives a question, where it gives any."""

    answer: str
    structural: str = ""
    semantic: str = ""

    @property
    def open_or_binary(self) -> str:
        """As `eval.py` tells them apart: open questions are those of the structural type `query`."""
        return "" if not self.structural else "open" if self.structural == "query" else "binary"


class Gqa(Task[GqaLabel]):
    """Accuracy over the balanced questions (`testdev` in LLaVA's tables)."""

    name = "gqa"
    title = "GQA"
    forms = (
        "--questions testdev_balanced_questions.json, --images the folder `images` of the release",
        "--questions llava_gqa_testdev_balanced.jsonl --annotations testdev_balanced_questions.json, the same images",
    )
    prompt_suffix = "Answer the question using a single word or phrase."
    takes = frozenset({"annotations"})

    def read(self, sources: Sources) -> Sequence[Item[GqaLabel]]:
        """Both forms; see `Task.read`."""
        if sources.questions.suffix == ".jsonl":
            return self._read_llava(sources)
        self.refuse_labels(sources)
        questions = _release(read_object(sources.questions))
        return [self._item(name, row, sources) for name, row in questions if _is_balanced(row)]

    def score(self, items: Sequence[Item[GqaLabel]], answers: Mapping[Id, str]) -> Scores:
        """Accuracy; by type where the file gives types."""
        right = {item.id: _cleaned(answers[item.id]) == item.label.answer for item in items}
        tables = {
            "answer": by_category(items, right, lambda label: label.open_or_binary),
            "structural type": by_category(items, right, lambda label: label.structural),
            "semantic type": by_category(items, right, lambda label: label.semantic),
        }
        return Scores(
            metric="accuracy",
            value=accuracy(right.values()),
            n=len(items),
            categories={name: table for name, table in tables.items() if table},
        )

    def _item(self, name: str, row: Row, sources: Sources) -> Item[GqaLabel]:
        return Item(
            id=name,
            prompt=self.ask(row.text("question"), sources),
            images=(row.picture("imageId", sources.images, "{}.jpg"),),
            reference=_label(row),
            where=row.where,
        )

    def _read_llava(self, sources: Sources) -> list[Item[GqaLabel]]:
        labels = dict(_release(read_object(sources.annotations))) if sources.annotations else {}
        items = []
        for row in read_rows(sources.questions):
            name = str(row.identity("question_id"))
            if labels and name not in labels:
                raise row.bad("question_id", f"{name} is not in {sources.annotations}")
            if labels and not _is_balanced(labels[name]):
                continue
            items.append(
                Item(
                    id=name,
                    prompt=self.ask_as_given(row, "text", sources),
                    images=(row.picture("image", sources.images),),
                    reference=_label(labels[name]) if labels else None,
                    where=row.where,
                )
            )
        return items


def _release(file: Row) -> list[tuple[str, Row]]:
    """The release's object: question id → question."""
    rows = []
    for name, values in file.values.items():
        if not isinstance(values, dict):
            raise InvalidArgument("--questions", f"{file.where}: {name}: an object is needed")
        rows.append((name, Row(f"{file.where}: {name}", values)))
    return rows


def _is_balanced(row: Row) -> bool:
    """Whether the question counts; where the file does not say, it does."""
    return row.values.get("isBalanced") is not False


def _label(row: Row) -> GqaLabel | None:
    """`None` for the splits whose answers are not public."""
    if "answer" not in row:
        return None
    types = row.values.get("types") or {}
    return GqaLabel(row.text("answer"), types.get("structural", ""), types.get("semantic", ""))


def _cleaned(text: str) -> str:
    return text.strip().rstrip(".").lower()
