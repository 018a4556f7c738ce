"""Asks the exam through the services, row by row, and keeps what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np

from embedded_model.evaluate.exam import ExamPicture
from embedded_model.evaluate.rows import Row
from embedded_model.questions import Question
from vscan.errors import VScanError
from vscan_client import Answer, AsyncClient, SamplingSpec
from vscan_client.cli.local_stack import ANY_PORT, LocalStack

CONCURRENCY = 24
_GREEDY = SamplingSpec(temperature=0.0, max_new_tokens=6)


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Visual tokens of one question, as the decoder reported them."""

    after_stage_1: int
    after_stage_2: int  # past the last pruning layer
    average: float  # over the layers


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a row did."""

    row: Row
    right: np.ndarray  # [pictures, families] bool
    tokens: TokenCounts  # means over the questions


def ask_rows(
    rows: Sequence[Row], pictures: Sequence[ExamPicture], model: Path | None, advance: Callable[[], None]
) -> list[Outcome]:
    """Every row's outcome, in order; rows that need another deployment get one. `advance` is called for each answer.

    Raises:
        VScanError: the services did not start, or a question failed.
        ValueError: questions of one row had different counts of visual tokens.
    """
    outcomes: dict[str, Outcome] = {}
    for layer in sorted({row.prune_layer for row in rows}, reverse=True):
        with _deployed(layer, model) as server:
            mine = [row for row in rows if row.prune_layer == layer]
            outcomes |= asyncio.run(_ask(server, mine, pictures, advance))
    return [outcomes[row.name] for row in rows]


@contextmanager
def _deployed(prune_layer: int, model: Path | None) -> Iterator[str]:
    settings = {"decoder": {"prune_layers": str(prune_layer)}}
    with LocalStack(model=model, decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, settings=settings) as stack:
        yield stack.addresses.decoder


async def _ask(
    server: str, rows: Sequence[Row], pictures: Sequence[ExamPicture], advance: Callable[[], None]
) -> dict[str, Outcome]:
    outcomes = {}
    async with AsyncClient(server=server) as client:
        for row in rows:
            try:
                outcomes[row.name] = await _ask_row(client, row, pictures, advance)
            except* VScanError as failed:
                raise _first(failed) from None
    return outcomes


def _first(group: BaseExceptionGroup[VScanError]) -> VScanError:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one


async def _ask_row(client: AsyncClient, row: Row, pictures: Sequence[ExamPicture], advance: Callable[[], None]) -> Outcome:
    room = asyncio.Semaphore(CONCURRENCY)

    async def ask(picture: ExamPicture, question: Question, number: int) -> Answer:
        async with room:
            png = picture.half_png if row.half_resolution else picture.png
            prune = replace(row.prune, seed=number)  # a random rater draws anew for each question
            answer = await client.ask(png, question.text, reduction=row.reduction, prune=prune, sampling=_GREEDY)
            advance()
            return answer

    async with asyncio.TaskGroup() as group:
        numbers = count()
        tasks = [[group.create_task(ask(picture, q, next(numbers))) for q in picture.questions] for picture in pictures]
    answers = [[task.result() for task in line] for line in tasks]
    right = [
        [answer.text.strip() == question.answer for answer, question in zip(line, picture.questions, strict=True)]
        for line, picture in zip(answers, pictures, strict=True)
    ]
    counts = [_counts(answer) for line in answers for answer in line]
    return Outcome(row, np.array(right), _mean(counts))


def _counts(answer: Answer) -> TokenCounts:
    first = answer.images[0].tokens_after
    last = answer.pruning[-1].tokens_after if answer.pruning else first
    return TokenCounts(first, last, answer.usage.visual_tokens_average)


def _mean(counts: Sequence[TokenCounts]) -> TokenCounts:
    """Every question of a row has the same counts; were they not, the row would not be what it says."""
    if len(set(counts)) != 1:
        raise ValueError(f"questions of one row had different counts of visual tokens: {sorted(set(counts), key=str)}")
    return counts[0]
