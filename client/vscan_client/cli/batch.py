"""Many questions on their way to a file of answers, some at once: what `ask-many` and `eval` share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from vscan.errors import Unavailable, VScanError
from vscan_client.cli.progress import progress

if TYPE_CHECKING:
    from vscan_client import Answer, AsyncClient
    from vscan_client.cli.answer_file import AnswerFile
    from vscan_client.cli.question_file import Id
    from vscan_client.content import Visual
    from vscan_client.options import AskOptions


class Prepared(NamedTuple):
    """A question with its files read."""

    visuals: list[Visual]
    question: str
    options: AskOptions


class Asked(Protocol):
    """One question of a batch; `meta` is passed on to its answer."""

    @property
    def id(self) -> Id:
        """Its name in the file of answers."""

    @property
    def meta(self) -> Any:
        """A JSON value; `None` for none."""

    def prepare(self) -> Prepared:
        """Reads its files, in a thread of its own. Raises VScanError, which is then its line in the file."""


class Batch:
    """Questions on their way to answers. A question's error is its line in the file; it stops nothing.

    Only where the server was away for as many questions in a row as are under way at once, each after all its tries, no more
    are asked: thousands of others would fail alike.

    Attributes:
        left: those that the file has no answer to.
        skipped: how many were answered before.
        answered, failed: how many were, in this run; the rest of `left` was not asked.
    """

    def __init__(self, questions: Sequence[Asked], answers: AnswerFile) -> None:
        self.left = [question for question in questions if question.id not in answers.answered]
        self.skipped = len(questions) - len(self.left)
        self.answered = self.failed = 0
        self._answers = answers
        self._away = 0  # questions in a row for which the server was

    async def run(self, client: AsyncClient, concurrency: int) -> None:
        """Asks those that are left, `concurrency` at a time."""
        with progress("asking", len(self.left)) as shown:
            left = iter(self.left)
            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(self._work(client, left, shown.advance, concurrency))

    def told(self) -> str:
        """How it went, in one line."""
        unasked = len(self.left) - self.answered - self.failed
        rest = f", {unasked} were not asked" if unasked else ""
        return f"{self.answered} answered, {self.failed} failed, {self.skipped} were answered before{rest}"

    async def _work(self, client: AsyncClient, left: Iterator[Asked], advance: Callable[[], None], enough: int) -> None:
        while self._away < enough and (question := next(left, None)) is not None:
            try:
                self._answers.add_answer(question.id, await _ask(client, question), question.meta)
                self.answered += 1
                self._away = 0
            except VScanError as error:
                self._answers.add_error(question.id, error, question.meta)
                self.failed += 1
                self._away = self._away + 1 if isinstance(error, Unavailable) else 0
            advance()


async def _ask(client: AsyncClient, question: Asked) -> Answer:
    visuals, text, options = await asyncio.to_thread(question.prepare)
    return await client.ask(visuals, text, **options)
