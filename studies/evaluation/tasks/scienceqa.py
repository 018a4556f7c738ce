"""ScienceQA: questions with options from school books, half of them with an image.

Files: the release's problems.json and pid_splits.json (Lu et al., NeurIPS 2022), or LLaVA's `llava_test_CQM-A.json` with
problems.json beside. Rule: the letter is found as in LLaVA's `llava/eval/eval_science_qa.py`; the averages are those of the
release's `tools/evaluate_acc.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.evaluation.multiple_choice import lettered
from studies.evaluation.reading import Row, read_json, read_object, rows_of
from studies.evaluation.scoring import accuracy
from studies.evaluation.task import Item, Score, Scores, Sources, Task
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

_LETTERS = "ABCDE"
_SENTENCE = re.compile(r"The answer is ([A-Z]).")
_SUBJECTS = {"NAT": "natural science", "SOC": "social science", "LAN": "language science"}


@dataclass(frozen=True, slots=True)
class ScienceQaLabel:
    """The index of the right choice, of how many; and what the averages are taken over."""

    answer: int
    choices: int
    subject: str
    grade: int
    has_text: bool
    has_image: bool


class ScienceQa(Task[ScienceQaLabel]):
    """Accuracy, with the averages of the release's tables.

    Args:
        images_only: only questions with an image are asked: what tables about visual tokens report as SQA.
    """

    prompt_suffix = "Answer with the option's letter from the given choices directly."
    max_new_tokens = 1024
    takes = frozenset({"annotations", "split"})

    def __init__(self, *, images_only: bool) -> None:
        self._images_only = images_only
        self.name = "scienceqa-img" if images_only else "scienceqa"
        self.title = "ScienceQA, questions with an image" if images_only else "ScienceQA"
        self.forms = (
            "--questions problems.json (pid_splits.json beside it), --split test (the default), --images images/test",
            "--questions llava_test_CQM-A.json --annotations problems.json, --images images/test",
        )

    def read(self, sources: Sources) -> Sequence[Item[ScienceQaLabel]]:
        """Both forms; see `Task.read`."""
        read = read_json(sources.questions)
        items = self._llava_items(read, sources) if isinstance(read, list) else self._items(read, sources)
        return [item for item in items if item.images] if self._images_only else items

    def score(self, items: Sequence[Item[ScienceQaLabel]], answers: Mapping[Id, str]) -> Scores:
        """Accuracy over all questions asked, and the averages of the release."""
        found = {item.id: chosen_index(answers[item.id], item.label.choices) for item in items}
        right = {item.id: found[item.id] == item.label.answer for item in items}
        averages = {
            name: Score(accuracy(points), len(points))
            for name in (*_SUBJECTS, "TXT", "IMG", "NO", "G1-6", "G7-12")
            if (points := [right[item.id] for item in items if _is_in(name, item.label)])
        }
        return Scores(
            metric="IMG accuracy" if self._images_only else "accuracy",
            value=accuracy(right.values()),
            n=len(items),
            categories={"average": averages},
            counts={"answers without a letter (wrong)": sum(index is None for index in found.values())},
        )

    def _items(self, problems: object, sources: Sources) -> list[Item[ScienceQaLabel]]:
        self.refuse_labels(sources)
        file = _object(problems, sources.questions)
        split = sources.split or "test"
        names = read_object(sources.questions.with_name("pid_splits.json")).texts(split)
        return [self._item(name, _problem(file, name), sources) for name in names]

    def _item(self, name: str, problem: Row, sources: Sources) -> Item[ScienceQaLabel]:
        """The prompt of LLaVA's file: the hint as context, the question, the options."""
        hint = problem.plain_text("hint")
        context = f"Context: {hint}\n" if hint else ""
        question = f"{context}{problem.text('question')}\n{lettered(problem.texts('choices'))}"
        image = problem.values.get("image")
        pictures = (problem.picture_called(f"{name}/{problem.text('image')}", "image", sources.images),) if image else ()
        return Item(
            id=name, prompt=self.ask(question, sources), images=pictures, reference=_label(problem), where=problem.where
        )

    def _llava_items(self, read: object, sources: Sources) -> list[Item[ScienceQaLabel]]:
        path = sources.annotations
        if sources.split is not None:
            raise InvalidArgument("--split", f"{sources.questions.name} is one split", limit="only with problems.json")
        problems = read_object(path) if path else None
        items = []
        for row in rows_of(read, f"{sources.questions}: "):
            name = str(row.identity("id"))
            first = row.rows("conversations")[:1]
            if not first:
                raise row.bad("conversations", "none")
            items.append(
                Item(
                    id=name,
                    prompt=self.ask(first[0].text("value").replace("<image>", "").strip(), sources),
                    images=(row.picture("image", sources.images),) if "image" in row else (),
                    reference=_label(_problem(problems, name)) if problems else None,
                    where=row.where,
                )
            )
        return items


def chosen_index(answer: str, choices: int) -> int | None:
    """Which choice an answer names, 0 for A; `None` for none.

    The whole answer is a letter; or it begins with a letter, a full stop and a blank; or it says just once `The answer is X`
    and something behind it on that line.
    """
    text = answer.strip()
    if text and text in _LETTERS and len(text) == 1:
        letter = text
    elif text[:1] and text[0] in _LETTERS and text[1:3] == ". ":
        letter = text[0]
    else:
        said = _SENTENCE.findall(text)
        letter = said[0] if len(said) == 1 else ""
    index = _LETTERS.find(letter) if letter else -1
    return index if 0 <= index < choices else None


def _is_in(name: str, label: ScienceQaLabel) -> bool:
    if name in _SUBJECTS:
        return label.subject == _SUBJECTS[name]
    return {
        "TXT": label.has_text,
        "IMG": label.has_image,
        "NO": not label.has_text and not label.has_image,
        "G1-6": 1 <= label.grade <= 6,
        "G7-12": 7 <= label.grade <= 12,
    }[name]


def _label(problem: Row) -> ScienceQaLabel:
    grade = problem.text("grade").removeprefix("grade")
    if not grade.isdigit():
        raise problem.bad("grade", f"{problem.text('grade')!r} is not of the form grade4")
    return ScienceQaLabel(
        answer=problem.integer("answer"),
        choices=len(problem.texts("choices")),
        subject=problem.text("subject"),
        grade=int(grade),
        has_text=bool(problem.plain_text("hint")),
        has_image=bool(problem.values.get("image")),
    )


def _object(value: object, path: Path) -> Row:
    if not isinstance(value, dict):
        raise InvalidArgument("--questions", f"{path}: an object of problems is needed")
    return Row(str(path), value)


def _problem(problems: Row, name: str) -> Row:
    problem = problems.values.get(name)
    if not isinstance(problem, dict):
        raise InvalidArgument("--questions", f"{problems.where}: there is no problem {name!r}")
    return Row(f"{problems.where}: {name}", problem)
