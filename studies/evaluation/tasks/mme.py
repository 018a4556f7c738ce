"""MME: two yes-or-no questions about each image, in fourteen subtasks.

Rule: the release's `eval_tool/calculation.py` (Fu et al., 2023): in lower case an answer is yes or no, or one of them is
within its first four characters; else it is other, and wrong. A subtask scores 100 · (accuracy + accuracy+), where accuracy+
is the share of images both of whose questions are right; perception and cognition are sums over their subtasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.evaluation.pictures import Picture
from studies.evaluation.reading import Row, labels_by, read_rows, read_text
from studies.evaluation.scoring import distinct
from studies.evaluation.task import Item, Score, Scores, Sources, Task
from vscan.errors import InvalidArgument
from vscan_client.cli.question_file import Id

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
_ORDER = "Please answer yes or no."
_PAIR = 2
_IMAGES = (".jpg", ".png", ".jpeg")


@dataclass(frozen=True, slots=True)
class MmeLabel:
    """Yes or no, and the pair to which the question belongs: subtask and image."""

    answer: str
    subtask: str
    image: str


class Mme(Task[MmeLabel]):
    """Perception (at most 2000) and cognition (at most 800); together they are the MME of tables about visual tokens."""

    name = "mme"
    title = "MME"
    forms = (
        "--questions the folder MME_Benchmark_release_version, --images the same",
        "--questions llava_mme.jsonl --annotations that folder, --images that folder",
    )
    prompt_suffix = "Answer the question using a single word or phrase."
    takes = frozenset({"annotations"})

    def read(self, sources: Sources) -> Sequence[Item[MmeLabel]]:
        """Both forms; see `Task.read`. As LLaVA asks them, questions end without `Please answer yes or no.`"""
        items = self._release_items(sources) if sources.questions.is_dir() else self._llava_items(sources)
        for file, count in Counter(self.group_of(item) for item in items).items():
            if count != _PAIR:
                raise InvalidArgument("--questions", f"{file}: {count} questions are asked", limit="2 an image")
        return items

    def _release_items(self, sources: Sources) -> list[Item[MmeLabel]]:
        self.refuse_labels(sources)
        asked = list(_release(sources.questions))
        names = distinct([f"{each.subtask}/{each.stem}" for each in asked])
        return [
            Item(
                id=name,
                prompt=self.ask(each.question, sources),
                images=(Picture(_image_beside(each.file)),),
                reference=each.label,
            )
            for each, name in zip(asked, names, strict=True)
        ]

    def group_of(self, item: Item[MmeLabel]) -> Hashable:
        """Both questions about an image."""
        return item.images[0].path

    def score(self, items: Sequence[Item[MmeLabel]], answers: Mapping[Id, str]) -> Scores:
        """Sums and subtasks. Raises InvalidArgument where an image has not two questions."""
        said = {item.id: yes_or_no(answers[item.id]) for item in items}
        pairs: dict[str, dict[str, list[bool]]] = {}
        for item in items:
            label = item.label
            pairs.setdefault(label.subtask, {}).setdefault(label.image, []).append(said[item.id] == label.answer)
        scores = {subtask: _subtask_score(subtask, images) for subtask, images in pairs.items()}
        perception = {name: scores[name] for name in PERCEPTION if name in scores}
        cognition = {name: scores[name] for name in COGNITION if name in scores}
        sums = [sum(score.value for score in table.values()) for table in (perception, cognition)]
        missing = [name for name in (*PERCEPTION, *COGNITION) if name not in scores]
        return Scores(
            metric="perception + cognition",
            value=sum(sums),
            n=len(items),
            unit="points",
            further={"perception": sums[0], "cognition": sums[1]},
            categories={name: table for name, table in (("perception", perception), ("cognition", cognition)) if table},
            counts={"answers that were neither yes nor no (wrong)": sum(each == "other" for each in said.values())},
            notes=(f"not asked, and missing in the sums: {', '.join(missing)}",) if missing else (),
        )

    def _llava_items(self, sources: Sources) -> list[Item[MmeLabel]]:
        rows = read_rows(sources.questions)
        labels: dict[tuple[str, str, str], MmeLabel] | None = None
        if sources.annotations:
            asked = _release(sources.annotations)
            labels = labels_by(((each.subtask, each.stem, each.question), each.label, each.where) for each in asked)
        names = distinct([str(row.identity("question_id")) for row in rows])
        return [
            Item(
                id=name,
                prompt=self.ask_as_given(row, "text", sources),
                images=(row.picture("image", sources.images),),
                reference=_llava_label(row, labels),
            )
            for row, name in zip(rows, names, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A line of the release: its file, the line's number, without `_ORDER` the question, and the answer."""

    subtask: str
    file: Path
    number: int
    question: str
    answer: str

    @property
    def stem(self) -> str:
        return self.file.stem

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"

    @property
    def label(self) -> MmeLabel:
        return MmeLabel(self.answer, self.subtask, self.stem)


def yes_or_no(text: str) -> str:
    """`yes`, `no` or `other`; see above. Blanks around the answer do not count: LLaVA's scripts take them off."""
    start = text.strip().lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def _subtask_score(subtask: str, images: Mapping[str, Sequence[bool]]) -> Score:
    for image, right in images.items():
        if len(right) != _PAIR:
            raise InvalidArgument("--questions", f"{subtask}/{image}: {len(right)} questions were asked", limit="2 an image")
    answers = [right for pair in images.values() for right in pair]
    both = [all(pair) for pair in images.values()]
    return Score(100 * (sum(answers) / len(answers) + sum(both) / len(both)), len(answers))


def _release(folder: Path) -> Iterator[_Asked]:
    """Every line of a subtask's text files: beside the images, or in a folder of their own."""
    if not folder.is_dir():
        raise InvalidArgument("--annotations", f"{folder} is not a folder")
    for subtask in sorted(path for path in folder.iterdir() if path.is_dir()):
        texts = subtask / "questions_answers_YN"
        for file in sorted((texts if texts.is_dir() else subtask).glob("*.txt")):
            for number, line in enumerate(read_text(file).split("\n"), 1):
                if line.strip():
                    yield _parsed(subtask.name, file, number, line.strip())


def _parsed(subtask: str, file: Path, number: int, line: str) -> _Asked:
    question, tab, answer = line.partition("\t")
    if not tab or answer.strip().lower() not in ("yes", "no"):
        raise InvalidArgument("--questions", f"{file}:{number}: a question, a tab and Yes or No are needed")
    return _Asked(subtask, file, number, _bare(question), answer.strip().lower())


def _bare(question: str) -> str:
    """Without the order to say yes or no, which LLaVA replaces by its own, and with single blanks."""
    return " ".join(question.replace(_ORDER, "").split())


def _image_beside(text: Path) -> Path:
    """The image of a text file: beside it, or in the folder `images` beside that of the texts.

    Where there is none, a name that is no file's: all that is missing is told at once.
    """
    folder = text.parent.with_name("images") if text.parent.name == "questions_answers_YN" else text.parent
    found = [folder / f"{text.stem}{suffix}" for suffix in _IMAGES if (folder / f"{text.stem}{suffix}").is_file()]
    return found[0] if found else folder / f"{text.stem}{{{','.join(_IMAGES)}}}"


def _llava_label(row: Row, labels: Mapping[tuple[str, str, str], MmeLabel] | None) -> MmeLabel | None:
    if labels is None:
        return None
    parts = row.text("question_id").split("/")
    key = (parts[0], parts[-1].partition(".")[0], _bare(row.text("text").partition("\n")[0]))
    if key not in labels:
        raise row.bad("text", f"no question {key[2]!r} about {key[0]}/{key[1]} in the annotations")
    return labels[key]
