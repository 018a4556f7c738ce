"""Asks all questions in the way of one point, and keeps what came back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Self

from studies.tune.cost import Cost, LanguageShape
from studies.tune.point import Point
from studies.tune.questions import Question
from vscan.errors import VScanError
from vscan.specs import SamplingSpec
from vscan_client import Answer, AsyncClient

TIMED_QUESTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How a point did."""

    point: Point
    right: tuple[bool, ...]  # for each question
    cost: Cost  # mean over the questions
    # For each timed question the prefill's duration over that of the same question without reduction, asked next to it.
    prefill_ratios: tuple[float, ...]

    @property
    def prefill_ratio(self) -> float:
        """The median; below 1 is faster than without reduction."""
        return median(self.prefill_ratios)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; answers as a text of 1 and 0."""
        return {
            "point": self.point.to_json(),
            "right": "".join("1" if right else "0" for right in self.right),
            "cost": asdict(self.cost),
            "prefill_ratios": list(self.prefill_ratios),
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        """Reads `to_json`."""
        return cls(
            point=Point.from_json(told["point"]),
            right=tuple(mark == "1" for mark in told["right"]),
            cost=Cost(**told["cost"]),
            prefill_ratios=tuple(told["prefill_ratios"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """How points are asked.

    Attributes:
        baseline: no reduction.
        shape: of the language model, for counting.
        max_new_tokens: of an answer whose question does not say.
        concurrency: questions under way at once; those that are timed go alone.
        advance: called after each answer.
    """

    questions: Sequence[Question]
    baseline: Point
    shape: LanguageShape
    max_new_tokens: int
    concurrency: int
    advance: Callable[[], None]

    @property
    def asks_per_point(self) -> int:
        """How often `advance` is called for one point."""
        return len(self.questions) + 2 * len(self._timed())

    async def measure(self, client: AsyncClient, point: Point) -> Measured:
        """Asks every question, then the timed ones in turn with and without reduction. Raises VScanError if one fails."""
        answers = await self.ask_all(client, point)
        ratios = [
            await self._prefill_ratio(client, point, number, baseline_first=turn % 2 == 1)
            for turn, number in enumerate(self._timed())
        ]
        return Measured(
            point=point,
            right=tuple(q.is_right(answer.text) for q, answer in zip(self.questions, answers, strict=True)),
            cost=Cost.mean([Cost.of(answer, self.shape) for answer in answers]),
            prefill_ratios=tuple(ratios),
        )

    async def ask_all(self, client: AsyncClient, point: Point) -> list[Answer]:
        """The answers to all questions, in order. Raises VScanError if one fails; the others are then given up."""
        room = asyncio.Semaphore(self.concurrency)

        async def ask(number: int) -> Answer:
            async with room:
                return await self._ask(client, point, number)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask(number)) for number in range(len(self.questions))]
        except* VScanError as failed:
            raise _first(failed) from None
        return [task.result() for task in tasks]

    async def _prefill_ratio(self, client: AsyncClient, point: Point, number: int, *, baseline_first: bool) -> float:
        """One pair; every other one begins with the baseline, so that a machine that slows down favours neither."""
        order = [self.baseline, point] if baseline_first else [point, self.baseline]
        times = [(await self._ask(client, each, number)).timings.prefill_ms for each in order]
        with_, without = times[::-1] if baseline_first else times
        return with_ / without

    async def _ask(self, client: AsyncClient, point: Point, number: int) -> Answer:
        question = self.questions[number]
        sampling = question.options.get("sampling") or SamplingSpec()
        if sampling.max_new_tokens is None:
            sampling = replace(sampling, max_new_tokens=self.max_new_tokens)
        answer = await client.ask(
            question.visuals, question.text, reduction=point.reduction(number), prune=point.prune(number), sampling=sampling
        )
        self.advance()
        return answer

    def _timed(self) -> list[int]:
        """Which questions, spread evenly."""
        count = min(TIMED_QUESTIONS, len(self.questions))
        return [number * len(self.questions) // count for number in range(count)]


def _first(group: BaseExceptionGroup[VScanError]) -> VScanError:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
