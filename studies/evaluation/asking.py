"""A benchmark's items as questions to a service, and the settings under which they are asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from studies.evaluation.task import Item, Sources, Task
from vscan_client import Description, Video
from vscan_client.cli.batch import Prepared
from vscan_client.cli.question_file import Id
from vscan_client.cli.questions import QuestionOptions
from vscan_client.content import Visual
from vscan_client.jsonable import jsonable

_UNSET = QuestionOptions()


@dataclass(frozen=True, slots=True)
class Question:
    """An item as a question of a batch."""

    item: Item[Any]
    options: QuestionOptions

    @property
    def id(self) -> Id:
        """The item's."""
        return self.item.id

    @property
    def meta(self) -> None:
        """None: what the scorer needs is in the item."""

    def prepare(self) -> Prepared:
        """Reads its files. Raises InvalidArgument."""
        sampling = self.options.frame_sampling()
        visuals: list[Visual] = [picture.load() for picture in self.item.images]
        visuals += [replace(Video.from_path(video), sampling=sampling) for video in self.item.videos]
        return Prepared(visuals, self.item.prompt, self.options.ask_options())


def questions_of(task: Task[Any], items: Sequence[Item[Any]], options: QuestionOptions) -> list[Question]:
    """Items with their options: those that were given, else the item's, else the task's.

    Raises:
        InvalidArgument: an option that cannot be read.
    """
    of_task = QuestionOptions(max_new_tokens=task.max_new_tokens, temperature=0.0)
    joined: dict[QuestionOptions, QuestionOptions] = {}  # by the item's own: most have none
    for hints in {item.hints for item in items}:
        joined[hints] = _joined(_joined(options, hints), of_task)
        joined[hints].ask_options()
    return [Question(item, joined[item.hints]) for item in items]


def settings_of(
    task: Task[Any], sources: Sources, options: QuestionOptions, questions: Sequence[Question], description: Description
) -> dict[str, Any]:
    """All that the answers depend on, as flat JSON values: a run is resumed only where all of them are the same."""
    suffix = task.prompt_suffix if sources.prompt_suffix is None else sources.prompt_suffix
    decoder = description.decoder
    return {
        "task": task.name,
        "questions_sha256": _fingerprint(questions, sources.images),
        "split": sources.split,
        "prompt_suffix": suffix,
        "box_form": sources.box_form,
        "max_new_tokens": task.max_new_tokens,
        "temperature": 0.0,
        **_given(options),
        "model": decoder.model,
        "pair_fingerprint": decoder.pair_fingerprint.hex(),
        "encoder_fingerprint": decoder.encoder_fingerprint.hex(),
        "prune_layers": list(decoder.prune_layers),
        "default_reduction": jsonable(decoder.reduction),
        "default_prune": jsonable(decoder.prune),
        "default_sampling": jsonable(decoder.sampling),
    }


def _given(options: QuestionOptions) -> dict[str, Any]:
    if options == _UNSET:
        return {}
    return {name: value for name, value in asdict(options).items() if value != getattr(_UNSET, name)}


def _joined(first: QuestionOptions, second: QuestionOptions) -> QuestionOptions:
    """Each option as the first says; as the second says where the first leaves it as it is."""
    left = [field.name for field in fields(_UNSET) if getattr(first, field.name) == getattr(_UNSET, field.name)]
    return replace(first, **{name: getattr(second, name) for name in left})


def _fingerprint(questions: Sequence[Question], images: Path) -> str:
    """SHA-256 over what is asked and what it is held against; of files the names, of images that the file carries all bytes."""
    digest = hashlib.sha256()
    for question in questions:
        item = question.item
        pictures = [_named(each.path, images) if each.path else each.base64_text for each in item.images]
        videos = [_named(video, images) for video in item.videos]
        line = [item.id, item.prompt, pictures, videos, _given(item.hints), item.reference]
        digest.update(json.dumps(line, default=jsonable, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def _named(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else file.name
