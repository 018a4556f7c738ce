"""`vscan ask-many questions.jsonl`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vscan.errors import VScanError
from vscan_client.cli import connection as shared
from vscan_client.cli.progress import progress

if TYPE_CHECKING:
    from vscan.telemetry.providers import Telemetry
    from vscan_client import Answer, AsyncClient
    from vscan_client.cli.answer_file import AnswerFile
    from vscan_client.cli.question_file import BadLine, QuestionLine


def ask_many(
    questions: Annotated[Path, typer.Argument(help="Lines of JSON: id, image(s) or video(s), question, and options of `ask`.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Where the answers go; goes on with a file that is there. Default: QUESTIONS.answers.jsonl."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Questions under way at once.")] = 8,
    server: shared.ServerOption = shared.DEFAULT_SERVER,
    tls_ca: shared.TlsCaOption = None,
    insecure: shared.InsecureOption = False,
    token_file: shared.TokenFileOption = None,
    timeout: shared.TimeoutOption = shared.DEFAULT_TIMEOUT_S,
    trace_console: shared.ConsoleOption = False,
    otlp_endpoint: shared.OtlpOption = None,
) -> None:
    """Ask every question of a file. Ends with 1 if any failed; run it again to go on and to try those again."""
    from vscan_client.cli.answer_file import AnswerFile
    from vscan_client.cli.question_file import read_questions

    connection = shared.Connection(
        server=server,
        tls_ca=tls_ca,
        insecure=insecure,
        token_file=token_file,
        timeout_s=timeout,
        trace_console=trace_console,
        otlp_endpoint=otlp_endpoint,
    )
    lines = read_questions(questions)
    with connection.telemetry() as telemetry, AnswerFile(out or questions.with_suffix(".answers.jsonl")) as answers:
        left = [line for line in lines if line.id not in answers.answered]
        batch = Batch(left, answers, questions.parent, skipped=len(lines) - len(left))
        try:
            asyncio.run(batch.run(connection, telemetry, concurrency))
        finally:
            print(f"{batch.answered} answered, {batch.failed} failed, {batch.skipped} were answered before", file=sys.stderr)
    if batch.failed:
        raise typer.Exit(1)


class Batch:
    """Questions on their way to answers. A question's error is its line in the file; it stops nothing."""

    def __init__(self, lines: list[QuestionLine | BadLine], answers: AnswerFile, folder: Path, *, skipped: int) -> None:
        self._lines = lines
        self._answers = answers
        self._folder = folder
        self.skipped = skipped
        self.answered = self.failed = 0

    async def run(self, connection: shared.Connection, telemetry: Telemetry | None, concurrency: int) -> None:
        """Asks them all, `concurrency` at a time. Raises the error of a server that cannot be reached at all."""
        from vscan_client import AsyncClient

        retry = shared.patient_retry(concurrency)
        async with AsyncClient(**connection.client_arguments(telemetry, retry)) as client:
            if self._lines:
                await client.describe()
            with progress("asking", len(self._lines)) as shown:
                left = iter(self._lines)
                async with asyncio.TaskGroup() as workers:
                    for _ in range(concurrency):
                        workers.create_task(self._work(client, left, shown.advance))

    async def _work(self, client: AsyncClient, left: Iterator[QuestionLine | BadLine], advance: Callable[[], None]) -> None:
        for line in left:
            try:
                self._answers.add_answer(line.id, await self._ask(client, line), getattr(line, "meta", None))
                self.answered += 1
            except VScanError as error:
                self._answers.add_error(line.id, error, getattr(line, "meta", None))
                self.failed += 1
            advance()

    async def _ask(self, client: AsyncClient, line: QuestionLine | BadLine) -> Answer:
        from vscan_client.cli.question_file import BadLine
        from vscan_client.cli.questions import parse_files

        if isinstance(line, BadLine):
            raise line.error
        options, sampling = line.options.ask_options(), line.options.frame_sampling()
        visuals = await asyncio.to_thread(parse_files, line.images, line.videos, sampling, self._folder)
        return await client.ask(visuals, line.question, **options)
