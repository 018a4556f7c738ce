"""A run of a benchmark: read, asked, scored, told."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from studies.evaluation.asking import questions_of, settings_of
from studies.evaluation.report import Traffic, summary_of, table_of, traffic_line
from studies.evaluation.task import Item, Scores, Sources, Task, read_items
from vscan.errors import InvalidArgument
from vscan_client import AsyncClient, Description
from vscan_client.cli.answer_file import AnswerFile, read_answers
from vscan_client.cli.batch import Batch
from vscan_client.cli.idle_options import refuse_idle
from vscan_client.cli.outputs import check_apart, check_file, named_in_errors
from vscan_client.cli.question_file import Id
from vscan_client.cli.questions import QuestionOptions


class Run:
    """Reads the questions at once; then `check`, `ask`, `conclude`.

    Args:
        out: where the summary goes; the answers lie beside it as `.answers.jsonl`, and a run goes on with what they hold.
        limit: only so many questions, the first ones, and what is scored together with the last of them.

    Raises:
        InvalidArgument: a file or an option is bad.
    """

    def __init__(
        self, task: Task[Any], sources: Sources, options: QuestionOptions, out: Path, *, limit: int | None = None
    ) -> None:
        self._task, self._sources, self._options, self._out, self._limit = task, sources, options, out, limit
        self._answers = out.with_name(f"{out.name.removesuffix('.json')}.answers.jsonl")
        self._items = read_items(task, sources, limit)
        _refuse_vain(task, self._items, options)
        self._questions = questions_of(task, self._items, options)
        self._settings: dict[str, Any] = {}
        self._description: Description

    def check(self, export: Path | None = None, judged: Path | None = None) -> None:
        """Looks, before anything is asked, whether `conclude` will be able to write and to read what it has to.

        Raises:
            InvalidArgument: a file cannot be written or is not there, or these questions cannot be handed in.
        """
        check_apart([("--out", self._out), ("--out", self._answers), ("--export", export), ("--judged", judged)])
        check_file("--out", self._out)
        if judged is not None and not judged.is_file():
            raise InvalidArgument("--judged", f"{judged} is not a file")
        if export is None:
            return
        check_file("--export", export)
        with named_in_errors("--export", export), TemporaryDirectory(prefix="vscan-eval-") as scratch:
            self._task.export(self._items, {item.id: "" for item in self._items}, Path(scratch) / export.name)

    async def ask(self, client: AsyncClient, concurrency: int) -> None:
        """Asks what is left. Raises the error of a server that cannot be reached, or of answers under other settings."""
        self._description = await client.describe()
        settings = settings_of(self._task, self._sources, self._options, self._questions, self._description)
        self._settings = settings | {"limit": self._limit}
        with AnswerFile(self._answers, self._settings) as answers:
            batch = Batch(self._questions, answers)
            try:
                await batch.run(client, concurrency)
            finally:
                print(batch.told(), file=sys.stderr)

    def conclude(self, export: Path | None = None, judged: Path | None = None, *, failed_as_empty: bool = False) -> bool:
        """Scores, prints, writes the summary and what is handed in; whether all questions were answered.

        Args:
            judged: a judge's verdicts, of which the scores are made.
            failed_as_empty: questions that failed count as answered, by nothing; those that were not asked do not.

        Raises:
            InvalidArgument: a file cannot be written, or the verdicts not be read.
        """
        texts, tokens, errors, traffic = self._collect()
        failed = Counter(error["name"] for error in errors.values())
        if failed_as_empty:
            texts |= dict.fromkeys(errors, "")
        complete = len(texts) == len(self._items)
        scores = self._scores(texts, tokens, judged) if complete else None
        if scores and failed:
            scores = replace(scores, notes=(*scores.notes, f"{failed.total()} questions failed and count as empty answers"))
        summary = summary_of(
            task=self._task.name,
            files=[str(file) for file in (self._sources.questions, self._sources.annotations) if file],
            scores=scores,
            asked=len(self._items),
            failed=failed,
            traffic=traffic,
            settings=self._settings,
            description=self._description,
        )
        try:
            self._out.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            if export is not None and complete:
                self._task.export(self._items, texts, export)
        except OSError as error:
            raise InvalidArgument("--out", f"{error.filename}: {error.strerror}") from error
        print("\n".join((table_of(self._task.title, scores) if scores else []) + traffic_line(summary)))
        if failed:
            self._tell_errors(errors, failed, complete=complete)
        return complete

    def _tell_errors(self, errors: Mapping[Id, Mapping[str, str]], failed: Counter[str], *, complete: bool) -> None:
        told = ", ".join(f"{count} {name}" for name, count in failed.items())
        then = "taken for empty answers" if complete else "not scored; run it again to go on"
        print(f"{failed.total()} of {len(self._items)} failed ({told}); {then}", file=sys.stderr)
        name, error = next(iter(errors.items()))
        print(f"the first, {name!r}: {' '.join(error['message'].split())}", file=sys.stderr)

    def _collect(self) -> tuple[dict[Id, str], dict[Id, Sequence[int]], dict[Id, Mapping[str, str]], Traffic]:
        """Answers by question, its images' visual tokens before reduction, errors by question, what the answers cost."""
        texts: dict[Id, str] = {}
        tokens: dict[Id, Sequence[int]] = {}
        errors: dict[Id, Mapping[str, str]] = {}
        traffic = Traffic()
        for record in read_answers(self._answers):
            if "error" in record:
                errors[record["id"]] = record["error"]
            else:
                texts[record["id"]] = record["text"]
                tokens[record["id"]] = tuple(image["tokens_before"] for image in record["images"])
                traffic.add(record)
        return texts, tokens, errors, traffic

    def _scores(self, texts: Mapping[Id, str], tokens: Mapping[Id, Sequence[int]], judged: Path | None) -> Scores | None:
        unlabelled = sum(not self._task.is_labelled(item) for item in self._items)
        if unlabelled:
            print(f"{unlabelled} of {len(self._items)} questions have no label; not scored", file=sys.stderr)
            return None
        if judged is not None:
            return self._task.judged(self._items, texts, judged)
        scores = self._task.score_run(self._items, texts, tokens)
        if scores is None:
            print(f"the score of {self._task.title} is a judge's: --export writes what it takes", file=sys.stderr)
        return scores


def _refuse_vain(task: Task[Any], items: Sequence[Item[Any]], options: QuestionOptions) -> None:
    """Raises InvalidArgument for an option that these questions would pass over."""
    if not any(item.videos for item in items):
        for option, value in (("--frames", options.frames), ("--fps", options.fps)):
            if value is not None:
                raise InvalidArgument(option, f"{task.name} asks about images", limit="only with videos")
    refuse_idle(options)
