"""MMBench and MMBench-CN: questions with options, each asked once for every rotation of its options.

Rule: VLMEvalKit, the benchmark's tool (Liu et al., ECCV 2024). CircularEval: a question counts as right if the answers to
all its rotations are; VanillaEval: the first rotation alone. A row's index is the question's, plus a million for each turn.
Letters are found by the tool's exact-match policy (`multiple_choice.chosen_letter`); where it finds none, the tool may ask
ChatGPT, and with it numbers are up to some points higher: such answers count as wrong here, and their number is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase

from studies.evaluation.multiple_choice import chosen_letter, lettered
from studies.evaluation.pictures import Picture
from studies.evaluation.reading import Row, read_rows, rows_by_id
from studies.evaluation.scoring import accuracy, by_category
from studies.evaluation.task import Item, Scores, Sources, Task
from studies.evaluation.writing import write_sheet, write_tsv
from vscan_client.cli.question_file import Id

_TURN = 1_000_000
_EMPTY = frozenset(("", "nan", "none"))


@dataclass(frozen=True, slots=True)
class MmbenchLabel:
    """A row: which question it is a turn of, its texts and options, and the letter that is right in this turn.

    `answer` is empty where labels are not public.
    """

    index: int
    hint: str
    question: str
    options: tuple[str, ...]
    answer: str
    category: str = ""
    l2_category: str = ""

    @property
    def group(self) -> int:
        """The index of the question itself, whose turns share it."""
        return self.index % _TURN

    @property
    def by_letter(self) -> dict[str, str]:
        """Letter → option."""
        return dict(zip(ascii_uppercase, self.options, strict=False))


class Mmbench(Task[MmbenchLabel]):
    """CircularEval of one language's file."""

    takes = frozenset({"split", "export"})
    export_form = (
        "a table with index, question, options and prediction: FILE.xlsx (extra `eval`), the spreadsheet that the benchmark's "
        "server takes, or else TSV"
    )
    max_new_tokens = 1024

    def __init__(self, name: str, title: str, release: str, prompt_suffix: str) -> None:
        self.name = name
        self.title = title
        self.prompt_suffix = prompt_suffix
        self.forms = (f"--questions {release}, which holds the images; --images any folder; --split where it has several",)

    def read(self, sources: Sources) -> Sequence[Item[MmbenchLabel]]:
        """The release's table; where it has no turned rows they are made. See `Task.read`."""
        rows = [row for row in read_rows(sources.questions) if sources.split in (None, row.values.get("split"))]
        rows_by_id(rows, "index")
        images = {row.integer("index"): row.text("image") for row in rows}
        pairs = [(_label(row), Picture(base64_text=_image(row, images))) for row in rows]
        if all(label.index < _TURN for label, _ in pairs):
            pairs = [(turned, picture) for label, picture in pairs for turned in _turns(label)]
        return [self._item(label, picture, sources) for label, picture in pairs]

    def group_of(self, item: Item[MmbenchLabel]) -> int:
        """All turns of a question."""
        return item.label.group

    def is_labelled(self, item: Item[MmbenchLabel]) -> bool:
        """The test split has questions and no answers."""
        return bool(item.label.answer)

    def score(self, items: Sequence[Item[MmbenchLabel]], answers: Mapping[Id, str]) -> Scores:
        """CircularEval, with VanillaEval beside it; the tables by category are of CircularEval."""
        found = {item.id: chosen_letter(answers[item.id], item.label.by_letter) for item in items}
        right = {item.id: found[item.id] == item.label.answer for item in items}
        wrong_groups = {item.label.group for item in items if not right[item.id]}
        first = [item for item in items if item.label.index < _TURN]
        circular = {item.id: item.label.group not in wrong_groups for item in first}
        unmatched = sum(letter is None for letter in found.values())
        turns = Counter(item.label.group for item in items)
        partly = sum(turns[item.label.group] < len(item.label.options) for item in first)
        notes = ["options are found by exact matching, without ChatGPT"]
        if partly:
            notes.append(f"{partly} questions were not asked in all their turns: CircularEval is too kind to them")
        return Scores(
            metric="CircularEval accuracy",
            value=accuracy(circular.values()),
            n=len(first),
            further={"VanillaEval accuracy": accuracy([right[item.id] for item in first])},
            categories={
                "l2-category": by_category(first, circular, lambda label: label.l2_category),
                "category": by_category(first, circular, lambda label: label.category),
            },
            counts={"answers asked for": len(items), "answers in which no option was found (wrong)": unmatched},
            notes=tuple(notes),
        )

    def export(self, items: Sequence[Item[MmbenchLabel]], answers: Mapping[Id, str], path: Path) -> None:
        """See `export_form`."""
        letters = ascii_uppercase[: max(len(item.label.options) for item in items)]
        rows = []
        for item in items:
            label = item.label
            options = [label.by_letter.get(letter, "") for letter in letters]
            rows.append([label.index, label.question, *options, answers[item.id]])
        write = write_sheet if path.suffix.lower() == ".xlsx" else write_tsv
        write(path, ["index", "question", *letters, "prediction"], rows)

    def _item(self, label: MmbenchLabel, picture: Picture, sources: Sources) -> Item[MmbenchLabel]:
        """LLaVA's `llava/eval/model_vqa_mmbench.py`: hint, question, options, suffix, a line each."""
        lines = [label.hint] if label.hint else []
        lines += [label.question, lettered(label.options)]
        return Item(id=label.index, prompt=self.ask("\n".join(lines), sources), images=(picture,), reference=label)


def _label(row: Row) -> MmbenchLabel:
    options = _options(row)
    answer = row.values.get("answer") or ""
    if answer and answer not in ascii_uppercase[: len(options)]:
        raise row.bad("answer", f"{answer!r} is none of its {len(options)} options")
    hint = row.values.get("hint") or ""
    return MmbenchLabel(
        index=row.integer("index"),
        hint="" if hint.lower() in _EMPTY else hint,
        question=row.text("question"),
        options=options,
        answer=answer,
        category=row.values.get("category") or "",
        l2_category=row.values.get("l2-category") or "",
    )


def _options(row: Row) -> tuple[str, ...]:
    """Those under A, B, … to the first that is empty."""
    options: list[str] = []
    for letter in ascii_uppercase:
        option = row.values.get(letter) or ""
        if option.lower() in _EMPTY:
            break
        options.append(option)
    if len(options) < 2:
        raise row.bad("A", "at least two options are needed, under A and B")
    return tuple(options)


def _image(row: Row, images: Mapping[int, str]) -> str:
    """The base64 text; some releases have it once and name its row's index in the turned ones."""
    text = row.text("image")
    if not text.isdigit():
        return text
    if int(text) not in images or images[int(text)].isdigit():
        raise row.bad("image", f"there is no row {text} with an image")
    return images[int(text)]


def _turns(label: MmbenchLabel) -> list[MmbenchLabel]:
    """A row for each rotation. Options A B C with B right: turn 1 is B C A with A right, turn 2 is C A B with C right."""
    count = len(label.options)
    turned = []
    for turn in range(count):
        options = label.options[turn:] + label.options[:turn]
        answer = ascii_uppercase[(ascii_uppercase.index(label.answer) - turn) % count] if label.answer else ""
        turned.append(replace(label, index=label.index + turn * _TURN, options=options, answer=answer))
    return turned
