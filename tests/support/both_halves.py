"""A checkpoint's two halves without their services, and conversations in the forms that they and transformers take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from decoder_service.chat import Chat, MediaKind, MediaPart, Part, Role, TextPart, Turn
from decoder_service.language.registry import load_language
from decoder_service.prompt import PromptWriter
from decoder_service.request import Pruning
from tests.support.engines import ids_of, make_engine, run_all
from tests.support.language_models import ask
from tests.support.tile_jobs import reduced
from tests.support.vision import load
from vscan.checkpoint import Checkpoint
from vscan.visual_tokens import SampledFrames


@dataclass(frozen=True)
class Clip:
    """A video: its frames, and how many make up a second."""

    frames: Sequence[Image.Image]
    per_second: float = 1.0
    kind = MediaKind.VIDEO

    @property
    def sampled(self) -> SampledFrames:
        """When they come."""
        count = len(self.frames)
        return SampledFrames(tuple(index / self.per_second for index in range(count)), count / self.per_second)


@dataclass(frozen=True)
class Picture:
    """An image."""

    image: Image.Image
    kind = MediaKind.IMAGE


Content = str | Picture | Clip
Turns = Sequence[tuple[Role, Sequence[Content]]]


def shown(turns: Turns) -> list[Picture | Clip]:
    """All images and videos, in order."""
    return [content for _, contents in turns for content in contents if not isinstance(content, str)]


def conversation(turns: Turns) -> list[dict[str, Any]]:
    """As transformers' chat templates take it."""

    def part(content: Content) -> dict[str, str]:
        return {"type": "text", "text": content} if isinstance(content, str) else {"type": content.kind.value}

    return [{"role": role.value, "content": [part(content) for content in contents]} for role, contents in turns]


class BothHalves:
    """Loaded once, asked greedily. Nothing is reduced; pruning as it is told."""

    def __init__(self, directory: Path) -> None:
        torch.set_num_threads(1)
        checkpoint = Checkpoint.open(directory)
        self.vision = load(directory, shallow_layer=None, window=None)
        self.language = load_language(checkpoint, dtype=torch.float32, device="cpu")
        self.writer = PromptWriter.open(checkpoint, self.language.tokens)
        self.engine = make_engine(self.language, prune_layers=(2,))

    def answers(self, turns: Turns, *prunings: Pruning, new_tokens: int) -> list[list[int]]:
        """The new tokens for each way to prune, run together."""
        chat = Chat(tuple(_turn(number, *turn) for number, turn in enumerate(turns)))
        ids = self.writer.ids(chat)
        media = self.writer.in_prompt_order(ids, shown(turns))
        values = reduced(self.vision, [self._prepared(one) for one in media]) if media else []
        prompt = self.writer.lay_out(ids, values)
        asked = [ask(prompt, max_new_tokens=new_tokens, pruning=pruning, ignore_eos=False) for pruning in prunings]
        events = run_all(self.engine, asked)
        return [ids_of(events[request.request_id]) for request in asked]

    def _prepared(self, one: Picture | Clip) -> Any:
        if isinstance(one, Picture):
            return self.vision.preprocess(one.image)
        return self.vision.preprocess_video(iter(one.frames), one.sampled)


def _turn(number: int, role: Role, contents: Sequence[Content]) -> Turn:
    field = f"messages[{number}]"

    def parts() -> Iterator[Part]:
        for index, content in enumerate(contents):
            path = f"{field}.parts[{index}]"
            yield TextPart(path, content) if isinstance(content, str) else MediaPart(path, content.kind)

    return Turn(field, role, tuple(parts()))
