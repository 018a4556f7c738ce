"""MSVD-QA, MSRVTT-QA, ActivityNet-QA and TGIF-QA as language models are asked them: open questions, judged by a model.

Files: `test_q.json` and `test_a.json` of Video-ChatGPT's and Video-LLaVA's evaluation, and a folder of videos. The field's
numbers, accuracy and a score of 0 to 5, are a language model's verdicts; they are not approximated here. `export` writes what
the judge script of these projects takes (`eval_video_qa.py`, which has the judge's prompt), and `judged` counts its verdicts as
that script does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.evaluation.pictures import inside
from studies.evaluation.reading import Row, read_rows, rows_by_id
from studies.evaluation.scoring import accuracy, by_category
from studies.evaluation.task import Item, Scores, Sources, Task
from studies.evaluation.verdicts import read_verdicts, score_verdicts
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
_NOT_OFFICIAL = "the benchmark's own number is a judge's: --export writes what one takes, --judged reads its verdicts"


@dataclass(frozen=True, slots=True)
class VideoLabel:
    """The question as the release has it, its answer, and its type where the release gives one."""

    question: str
    answer: str
    category: str = ""


class VideoQa(Task[VideoLabel]):
    """Exact match of our own, and what a judge said.

    Args:
        prefix: what a video's file may be called before the name that the questions have.
    """

    max_new_tokens = 1024  # as Video-LLaVA's scripts have it
    takes = frozenset({"annotations", "export", "judged"})
    export_form = 'lines {"id", "question", "answer", "pred"}, for the judge script of Video-ChatGPT and Video-LLaVA'

    def __init__(self, name: str, title: str, prefix: str = "") -> None:
        self.name, self.title, self._prefix = name, title, prefix
        self.forms = (
            "--questions test_q.json --annotations test_a.json, --images the folder of videos",
            "the same with --judged RESULTS.json: the numbers of a judge's verdicts",
        )

    def read(self, sources: Sources) -> Sequence[Item[VideoLabel]]:
        """See `Task.read`."""
        answers = self._answers(sources)
        return [self._item(row, answers, sources) for row in read_rows(sources.questions)]

    def score(self, items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str]) -> Scores:
        """How many answers are the label, word for word: a number of our own, far below a judge's."""
        right = {item.id: plain(answers[item.id]) == plain(item.label.answer) for item in items}
        types = by_category(items, right, lambda label: label.category)
        return Scores(
            metric="exact match (not the official score)",
            value=accuracy(right.values()),
            n=len(items),
            categories={"type": types} if types else {},
            counts={"empty answers": sum(not answers[item.id].strip() for item in items)},
            notes=(_NOT_OFFICIAL,),
        )

    def judged(self, items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str], path: Path) -> Scores:
        """What the judge's verdicts come to, counted as the field's script counts them."""
        return score_verdicts(read_verdicts(path), {str(item.id): answers[item.id] for item in items}, path)

    def export(self, items: Sequence[Item[VideoLabel]], answers: Mapping[Id, str], path: Path) -> None:
        """See `Task.export`. Ids become texts, as the script looks them up by its files' names.

        Raises:
            InvalidArgument: there are no labels, without which a judge has nothing to judge by.
        """
        if any(item.reference is None for item in items):
            raise InvalidArgument("--export", "a judge compares answers with labels: give them by --annotations")
        lines = [
            {"id": str(item.id), "question": item.label.question, "answer": item.label.answer, "pred": answers[item.id]}
            for item in items
        ]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")

    def video(self, row: Row, name: str, sources: Sources) -> Path:
        """The file of the video that the row's field names. Raises InvalidArgument where there are several.

        Where there is none, a name that is no file's: all that is missing is told at once.
        """
        called = str(row.identity(name))
        try:
            asked = [
                inside(sources.images, before + called + after) for before in ("", self._prefix) for after in ("", *ENDINGS)
            ]
        except InvalidArgument as error:
            raise row.bad(name, error.problem) from error
        found = sorted({file for file in asked if file.is_file()})
        if len(found) > 1:
            raise row.bad(name, f"both {found[0].name} and {found[1].name} are there in {sources.images}")
        return found[0] if found else sources.images / f"{called}{{{','.join(ENDINGS)}}}"

    def _item(self, row: Row, answers: Mapping[Id, Row], sources: Sources) -> Item[VideoLabel]:
        name, question = row.identity("question_id"), row.text("question")
        if answers and name not in answers:
            raise row.bad("question_id", f"{name!r} is not in {sources.annotations}")
        return Item(
            id=name,
            prompt=self.ask(question, sources),
            videos=(self.video(row, "video_name", sources),),
            reference=_label(question, answers.get(name, row)),
            where=row.where,
        )

    def _answers(self, sources: Sources) -> dict[Id, Row]:
        if sources.annotations is None:
            return {}
        return rows_by_id(read_rows(sources.annotations), "question_id")


def plain(text: str) -> str:
    """Lower case, no full stop at the end, single blanks."""
    return " ".join(text.lower().split()).rstrip(".").rstrip()


def _label(question: str, row: Row) -> VideoLabel | None:
    if "answer" not in row:
        return None
    kind = row.values.get("type")
    return VideoLabel(question, str(row.identity("answer")), "" if kind is None else str(kind))
