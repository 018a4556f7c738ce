"""POPE: is there such an object in the image? Objects that are not are drawn in three ways.

Rule: the benchmark's `evaluate.py` (Li et al., EMNLP 2023): of the text up to its first full stop, without commas, "no" if
one of the words between blanks is No, no or not; everything else is "yes". LLaVA's `llava/eval/eval_pope.py` is the same, by
category. The headline is the mean of the three F1 scores, as in LLaVA's tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.evaluation.reading import Row, labels_by, read_rows
from studies.evaluation.task import Item, Score, Scores, Sources, Task
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

_PREFIX = "coco_pope_"
_NO = frozenset(("No", "no", "not"))


@dataclass(frozen=True, slots=True)
class PopeLabel:
    """Whether the object is there, and how it was drawn: random, popular, adversarial."""

    there: bool
    category: str


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of one category; "yes" is positive."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def n(self) -> int:
        """All of them."""
        return self.tp + self.fp + self.tn + self.fn

    def numbers(self) -> dict[str, float]:
        """In percent. A ratio over nothing is 0, where the official script would end."""
        precision, recall = _percent(self.tp, self.tp + self.fp), _percent(self.tp, self.tp + self.fn)
        return {
            "F1": 2 * precision * recall / (precision + recall) if self.tp else 0.0,
            "accuracy": _percent(self.tp + self.tn, self.n),
            "precision": precision,
            "recall": recall,
            "yes ratio": _percent(self.tp + self.fp, self.n),
        }


class Pope(Task[PopeLabel]):
    """F1, accuracy, precision, recall and the share of "yes", for each way of drawing."""

    name = "pope"
    title = "POPE"
    forms = (
        "--questions the folder with coco_pope_random.json, …_popular.json and …_adversarial.json, or one of them; "
        "--images val2014",
        "--questions llava_pope_test.jsonl --annotations that folder, --images val2014",
    )
    prompt_suffix = "Answer the question using a single word or phrase."
    takes = frozenset({"annotations"})

    def read(self, sources: Sources) -> Sequence[Item[PopeLabel]]:
        """Both forms; see `Task.read`."""
        if sources.questions.suffix == ".jsonl":
            labels = _labels(sources.annotations) if sources.annotations else None
            return [self._llava_item(row, labels, sources) for row in read_rows(sources.questions)]
        self.refuse_labels(sources)
        return [
            Item(
                id=f"{category}/{row.identity('question_id')}",
                prompt=self.ask(row.text("text"), sources),
                images=(row.picture("image", sources.images),),
                reference=_label(row, category),
                where=row.where,
            )
            for category, path in _files(sources.questions)
            for row in read_rows(path)
        ]

    def score(self, items: Sequence[Item[PopeLabel]], answers: Mapping[Id, str]) -> Scores:
        """All numbers of each category; of the whole their means over the categories."""
        found = {
            category: _confusion([item.label.there for item in mine], [says_yes(answers[item.id]) for item in mine])
            for category, mine in _by_category(items).items()
        }
        tables: dict[str, dict[str, Score]] = {}
        for category, confusion in found.items():
            for name, value in confusion.numbers().items():
                tables.setdefault(name, {})[category] = Score(value, confusion.n)
        means = {name: sum(score.value for score in table.values()) / len(table) for name, table in tables.items()}
        return Scores(
            metric="F1",
            value=means.pop("F1"),
            n=len(items),
            further=means,
            categories=tables,
            notes=("numbers of the whole are means over the categories",) if len(found) > 1 else (),
        )

    def _llava_item(
        self, row: Row, labels: Mapping[tuple[str, str, str], PopeLabel] | None, sources: Sources
    ) -> Item[PopeLabel]:
        category = row.text("category")
        key = (category, row.text("image"), _question(row))
        if labels is not None and key not in labels:
            raise row.bad("text", f"no such question about {key[1]} in {_PREFIX}{category}.json of {sources.annotations}")
        return Item(
            id=row.identity("question_id"),
            prompt=self.ask_as_given(row, "text", sources),
            images=(row.picture("image", sources.images),),
            reference=labels[key] if labels is not None else None,
            where=row.where,
        )


def says_yes(text: str) -> bool:
    """How an answer counts; see above. Blanks around it do not: LLaVA's scripts take them off."""
    words = text.strip().partition(".")[0].replace(",", "").split(" ")
    return _NO.isdisjoint(words)


def _confusion(there: Sequence[bool], said: Sequence[bool]) -> Confusion:
    pairs = list(zip(there, said, strict=True))
    return Confusion(
        tp=pairs.count((True, True)),
        fp=pairs.count((False, True)),
        tn=pairs.count((False, False)),
        fn=pairs.count((True, False)),
    )


def _by_category(items: Sequence[Item[PopeLabel]]) -> dict[str, list[Item[PopeLabel]]]:
    found: dict[str, list[Item[PopeLabel]]] = {}
    for item in items:
        found.setdefault(item.label.category, []).append(item)
    return found


def _files(questions: Path) -> list[tuple[str, Path]]:
    """Category and file of each of the release's files in a folder, or of the one that is given."""
    files = sorted(questions.glob(f"{_PREFIX}*.json")) if questions.is_dir() else [questions]
    if not files:
        raise InvalidArgument("--questions", f"{questions}: no {_PREFIX}*.json in it")
    return [(file.stem.removeprefix(_PREFIX), file) for file in files]


def _labels(annotations: Path) -> dict[tuple[str, str, str], PopeLabel]:
    """By category, image and question: the files number their questions alike."""
    return labels_by(
        ((category, row.text("image"), _question(row)), _label(row, category), row.where)
        for category, path in _files(annotations)
        for row in read_rows(path)
    )


def _question(row: Row) -> str:
    """Without a suffix; the first release, which LLaVA's file was made of, says `an apple in the imange`."""
    return row.text("text").partition("\n")[0].replace("imange", "image")


def _label(row: Row, category: str) -> PopeLabel:
    label = row.text("label")
    if label not in ("yes", "no"):
        raise row.bad("label", f"{label!r} is neither yes nor no")
    return PopeLabel(label == "yes", category)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
