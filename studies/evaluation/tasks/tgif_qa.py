"""TGIF-QA (Jang et al., CVPR 2017): questions about animated GIFs.

Language models are asked its open questions in the form of `video_qa`, and judged. The release's own tables
(`dataset/Test_frameqa_question.csv` and the like, with tabs) have rules without a judge, which its code has
(`code/gifqa/models`): FrameQA, the answer is the label; action and transition, the right one of five options; count, the mean
squared distance to a whole number of 1 to 10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.evaluation.multiple_choice import chosen_letter, lettered
from studies.evaluation.reading import Row, read_rows
from studies.evaluation.scoring import accuracy, by_category
from studies.evaluation.task import Item, Scores, Sources
from studies.evaluation.tasks.video_qa import VideoLabel, VideoQa, plain
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

_TABLES = (".csv", ".tsv")
_OPTIONS = ("a1", "a2", "a3", "a4", "a5")
_LETTERS = "ABCDE"
_LEAST, _MOST = 1, 10
# The first letters of a question's `vid_id`, what follows it, and what kind of question it is.
_SUFFIXES: Mapping[str, str] = {
    "FRAMEQA": "Answer the question using a single word or phrase.",
    "ACTION": "Answer with the option's letter from the given choices directly.",
    "TRANS": "Answer with the option's letter from the given choices directly.",
    "COUNT": "Answer with a number.",
}
_SEEN = ("object", "number", "color", "location")  # FrameQA's types 0 to 3
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "once", "twice")
_VALUES: Mapping[str, int] = {**{word: value for value, word in enumerate(_WORDS[:11])}, "once": 1, "twice": 2}
_DIGITS = 100  # more than a model means; Python refuses thousands
_COUNT = re.compile(rf"\d+|\b(?:{'|'.join(_WORDS)})\b")


@dataclass(frozen=True, slots=True)
class TgifLabel(VideoLabel):
    """Also the kind of question, `FRAMEQA`, `ACTION`, `TRANS` or `COUNT`, and its options; no kind: to be judged."""

    kind: str = ""
    options: tuple[str, ...] = ()


class TgifQa(VideoQa):
    """The release's tables by its own rules, the form that is judged as `VideoQa` has it."""

    def __init__(self) -> None:
        super().__init__("tgif-qa", "TGIF-QA")
        self.forms += (
            "--questions Test_{frameqa,count,action,transition}_question.csv of the release, --images the folder of GIFs",
        )

    def read(self, sources: Sources) -> Sequence[Item[VideoLabel]]:
        """Both forms; see `Task.read`."""
        if sources.questions.suffix.lower() not in _TABLES:
            return super().read(sources)
        self.refuse_labels(sources)
        return [self._row_item(row, sources) for row in read_rows(sources.questions)]

    def score(self, items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str]) -> Scores:
        """By the rule of the table's kind; as `VideoQa` where a judge's is meant."""
        kinds = {getattr(item.label, "kind", "") for item in items}
        if len(kinds) > 1:
            raise InvalidArgument("--questions", f"kinds are mixed: {', '.join(sorted(kinds))}", limit="one kind a run")
        kind = next(iter(kinds), "")
        if kind == "FRAMEQA":
            return _score_frameqa(items, answers)
        if kind == "COUNT":
            return _score_counts(items, answers)
        return _score_choices(items, answers, kind) if kind else super().score(items, answers)

    def judged(self, items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str], path: Path) -> Scores:
        """See `VideoQa.judged`. Raises InvalidArgument for the tables, which are scored without one."""
        if any(isinstance(item.label, TgifLabel) for item in items):
            raise InvalidArgument("--judged", "the release's tables are scored without a judge")
        return super().judged(items, answers, path)

    def _row_item(self, row: Row, sources: Sources) -> Item[VideoLabel]:
        name = row.text("vid_id")
        kind = next((each for each in _SUFFIXES if name.startswith(each)), None)
        if kind is None:
            raise row.bad("vid_id", f"{name!r} begins with none of {', '.join(_SUFFIXES)}")
        label = _label(row, kind)
        asked = f"{label.question}\n{lettered(label.options)}" if label.options else label.question
        suffix = _SUFFIXES[kind] if sources.prompt_suffix is None else sources.prompt_suffix
        return Item(
            id=name,
            prompt=f"{asked}\n{suffix}" if suffix else asked,
            videos=(self.video(row, "gif_name", sources),),
            reference=label,
            where=row.where,
        )


def first_count(answer: str) -> int | None:
    """The first whole number of an answer, in digits or, up to ten, in words; a very long one is `_MOST` or more."""
    found = _COUNT.search(answer.lower())
    if found is None:
        return None
    return _VALUES[found[0]] if found[0] in _VALUES else int(found[0][:_DIGITS])


def _label(row: Row, kind: str) -> TgifLabel:
    question = row.text("question")
    if kind == "FRAMEQA":
        seen = row.integer("type")
        if seen >= len(_SEEN):
            raise row.bad("type", f"{seen}, where 0 to {len(_SEEN) - 1} is meant")
        return TgifLabel(question, row.text("answer"), _SEEN[seen], kind)
    answer = row.integer("answer")
    if kind == "COUNT":
        return TgifLabel(question, str(answer), "", kind)
    if answer >= len(_OPTIONS):
        raise row.bad("answer", f"{answer}, where 0 to {len(_OPTIONS) - 1} is meant")
    return TgifLabel(question, _LETTERS[answer], "", kind, tuple(row.text(option) for option in _OPTIONS))


def _score_frameqa(items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str]) -> Scores:
    right = {item.id: plain(answers[item.id]) == plain(item.label.answer) for item in items}
    types = by_category(items, right, lambda label: label.category)
    return Scores(metric="FrameQA accuracy", value=accuracy(right.values()), n=len(items), categories={"type": types})


def _score_choices(items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str], kind: str) -> Scores:
    chosen = {item.id: chosen_letter(answers[item.id], _lettered_options(item.label)) for item in items}
    return Scores(
        metric="action accuracy" if kind == "ACTION" else "transition accuracy",
        value=accuracy(chosen[item.id] == item.label.answer for item in items),
        n=len(items),
        counts={"answers without an option (wrong)": sum(each not in _LETTERS if each else True for each in chosen.values())},
    )


def _lettered_options(label: VideoLabel) -> Mapping[str, str]:
    return dict(zip(_LETTERS, label.options if isinstance(label, TgifLabel) else (), strict=False))


def _score_counts(items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str]) -> Scores:
    told = {item.id: first_count(answers[item.id]) for item in items}
    counts = {name: min(max(count or 0, _LEAST), _MOST) for name, count in told.items()}
    distances = [(counts[item.id] - int(item.label.answer)) ** 2 for item in items]
    return Scores(
        metric="mean squared error of counts",
        value=sum(distances) / len(distances) if distances else 0.0,
        n=len(items),
        unit="",
        further={"accuracy in %": accuracy(not distance for distance in distances)},
        counts={"answers without a number (count as 1)": sum(count is None for count in told.values())},
        notes=("lower is better; counts are taken to lie between 1 and 10, as the release's code takes them",),
    )
