"""What a benchmark is: how its files are read, how its answers are scored and handed in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from studies.evaluation.pictures import Picture
from studies.evaluation.reading import Row
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id
from vscan_client.cli.questions import QuestionOptions

R = TypeVar("R")
_NAMED = 5  # missing files that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a benchmark's questions are, as the options of `vscan eval` say.

    Attributes:
        questions: the file of questions, or the folder where the release is one.
        images: the folder of images or videos.
        annotations: the labels, where the release keeps them in a file of their own.
        split: which part of the release, where it has several in one file.
        prompt_suffix: what follows each question instead of the task's own `prompt_suffix`; `None`: that one.
        box_form: in which units the model names boxes (`studies.evaluation.boxes`), for tasks that take it.
    """

    questions: Path
    images: Path
    annotations: Path | None = None
    split: str | None = None
    prompt_suffix: str | None = None
    box_form: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item(Generic[R]):
    """One question.

    Attributes:
        id: its name within the run; unique.
        prompt: the whole text that is asked, suffix included.
        images: in the prompt's order.
        videos: files; they come after the images.
        hints: options of this question; those given on the command line go before them.
        reference: what the scorer needs: label, type, category; `None` where the labels are not public.
        where: its place, for errors: `file:line`.
    """

    id: Id
    prompt: str
    images: tuple[Picture, ...] = ()
    videos: tuple[Path, ...] = ()
    hints: QuestionOptions = field(default_factory=QuestionOptions)
    reference: R | None = None
    where: str = ""

    @property
    def label(self) -> R:
        """The reference, which is there whenever a task scores."""
        if self.reference is None:
            raise ValueError(f"{self.id!r} has no label")
        return self.reference


@dataclass(frozen=True, slots=True)
class Score:
    """A number, and over how many questions it was taken."""

    value: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a run came to.

    Attributes:
        metric: the headline number's name, as the field calls it.
        value: the headline number.
        n: over how many questions it was taken.
        unit: of all values.
        further: other numbers of the whole.
        categories: tables: name of the table → category → score.
        counts: how many of what, for instance answers that no option was found in.
        notes: what a reader has to know to compare the numbers with published ones.
    """

    metric: str
    value: float
    n: int
    unit: str = "%"
    further: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Task(ABC, Generic[R]):
    """One benchmark. Stateless: what is read goes into items, what is answered comes with `score`.

    Attributes:
        name: on the command line.
        title: as the field calls it.
        forms: for `--list`, what `--questions` (and `--annotations`, `--split`) may be.
        prompt_suffix: what LLaVA's evaluation scripts put behind the question, on a line of its own; may be empty.
        max_new_tokens: longest answer where no option says, as in LLaVA's evaluation scripts.
        takes: which of "annotations", "split", "export", "box_form" and "judged" the task has a use for.
        export_form: what `export` writes, in words; empty where the task takes no "export".
    """

    name: str
    title: str
    forms: tuple[str, ...]
    prompt_suffix: str = ""
    max_new_tokens: int = 128
    takes: frozenset[str] = frozenset()
    export_form: str = ""

    @abstractmethod
    def read(self, sources: Sources) -> Sequence[Item[R]]:
        """The questions.

        Raises:
            InvalidArgument: a file cannot be read; names file, line and field.
        """

    @abstractmethod
    def score(self, items: Sequence[Item[R]], answers: Mapping[Id, str]) -> Scores | None:
        """The official numbers; `None` where only a judge gives them, for whom `export` is.

        There is an answer to each item, and each is labelled.
        """

    def score_run(
        self, items: Sequence[Item[R]], answers: Mapping[Id, str], tokens: Mapping[Id, Sequence[int]]
    ) -> Scores | None:
        """`score`, for tasks that also need how many visual tokens each image of a question had before any reduction."""
        return self.score(items, answers)

    def judged(self, items: Sequence[Item[R]], answers: Mapping[Id, str], path: Path) -> Scores:
        """The official numbers where they are a judge's, from the file of its verdicts. Raises InvalidArgument."""
        raise InvalidArgument("--judged", f"{self.name} is scored without a judge")

    def export(self, items: Sequence[Item[R]], answers: Mapping[Id, str], path: Path) -> None:
        """Writes the answers in the form that the benchmark's server or judge takes."""
        raise InvalidArgument("--export", f"{self.name} has no form of its own to hand answers in")

    def group_of(self, item: Item[R]) -> Hashable:
        """Items of one group are scored together, so that a trial of the first questions has all of a group or none."""
        return item.id

    def is_labelled(self, item: Item[R]) -> bool:
        """Whether the item can be scored."""
        return item.reference is not None

    def ask(self, question: str, sources: Sources) -> str:
        """A question with its suffix on the next line."""
        suffix = self.prompt_suffix if sources.prompt_suffix is None else sources.prompt_suffix
        return f"{question}\n{suffix}" if suffix else question

    def refuse_labels(self, sources: Sources) -> None:
        """For files that have them within. Raises InvalidArgument where labels were given beside."""
        if sources.annotations is not None:
            raise InvalidArgument("--annotations", f"{sources.questions.name} has its answers within")

    def ask_as_given(self, row: Row, name: str, sources: Sources) -> str:
        """A prompt that has its suffix already; only where another one is wanted that is put in its place.

        Raises:
            InvalidArgument: another suffix is wanted, and the prompt does not end with the task's own.
        """
        prompt = row.text(name)
        if sources.prompt_suffix is None:
            return prompt
        question = prompt.removesuffix(f"\n{self.prompt_suffix}")
        if question == prompt:
            raise row.bad(name, f"--prompt-suffix cannot replace what does not end with {self.prompt_suffix!r}")
        return self.ask(question, sources)


def read_items(task: Task[Any], sources: Sources, limit: int | None = None) -> Sequence[Item[Any]]:
    """The task's questions, checked: some are there, their ids differ, their files exist.

    `limit`: only so many, the first ones, and what belongs to the last of them (`Task.group_of`).

    Raises:
        InvalidArgument: they do not, or the task has no use for an option that was given.
    """
    for option in ("annotations", "split"):
        if getattr(sources, option) is not None and option not in task.takes:
            raise InvalidArgument(f"--{option}", f"{task.name} takes none")
    items = task.read(sources)
    if not items:
        raise InvalidArgument("--questions", f"{sources.questions}: no question in it")
    _refuse_twins(items, sources.questions)
    asked = items if limit is None else _first(task, items, limit)
    _refuse_missing(asked)
    return asked


def _first(task: Task[Any], items: Sequence[Item[Any]], limit: int) -> Sequence[Item[Any]]:
    groups: dict[Hashable, list[Item[Any]]] = {}
    for item in items:
        groups.setdefault(task.group_of(item), []).append(item)
    asked: list[Item[Any]] = []
    for group in groups.values():
        if len(asked) >= limit:
            break
        asked += group
    return asked


def _refuse_twins(items: Sequence[Item[Any]], questions: Path) -> None:
    seen: dict[Id, Item[Any]] = {}
    for item in items:
        if (first := seen.setdefault(item.id, item)) is not item:
            told = f"{item.where or questions}: the question {item.id!r} is there twice"
            raise InvalidArgument("--questions", f"{told}, at {first.where} too" if first.where else told)


def _refuse_missing(items: Sequence[Item[Any]]) -> None:
    files = {image.path for item in items for image in item.images if image.path is not None}
    files |= {video for item in items for video in item.videos}
    missing = sorted(file for file in files if not file.is_file())
    if missing:
        named = ", ".join(map(str, missing[:_NAMED]))
        others = f" (and {len(missing) - _NAMED} more)" if len(missing) > _NAMED else ""
        raise InvalidArgument("--images", f"{len(missing)} of {len(files)} files asked about are not there: {named}{others}")
