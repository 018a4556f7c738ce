"""Asks an album's questions through the SDK and keeps what came back, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedded_model.album import Picture
from embedded_model.questions import Question
from vscan_client import Answer, Client, ImageReport, Place


@dataclass(frozen=True, slots=True)
class Asked:
    """One question and its answer. `repeated`: this picture had been asked about before."""

    picture: Picture
    question: Question
    answer: Answer
    repeated: bool
    time_to_first_token_ms: float  # seen by the client

    @property
    def image(self) -> ImageReport:
        """What became of the picture."""
        return self.answer.images[0]

    @property
    def correct(self) -> bool:
        """Exact match."""
        return self.answer.text.strip() == self.question.answer

    @property
    def after_pruning(self) -> int:
        """Visual tokens past the last pruning layer."""
        return self.answer.pruning[-1].tokens_after if self.answer.pruning else self.image.tokens_after

    @property
    def spared(self) -> bool:
        """A repeated picture must have come from a cache; a new one may not."""
        return (self.image.place in {Place.MEMORY, Place.REDIS, Place.ENCODER_MEMORY}) == self.repeated


def ask_round(client: Client, album: Sequence[Picture], number: int, seen: set[str]) -> Iterator[Asked]:
    """Question `number` of every picture, in turn; `seen` holds the names of pictures asked about before."""
    for picture in album:
        question = picture.questions[number]
        answer = client.ask(picture.png(), question.text, report_kept=True)
        yield Asked(picture, question, answer, picture.name in seen, answer.client.first_token_ms or 0.0)
        seen.add(picture.name)
