"""`vscan ask-many questions.jsonl`."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vscan_client.cli import connection as shared
from vscan_client.cli.batch import Batch, Prepared

if TYPE_CHECKING:
    from vscan.telemetry.providers import Telemetry
    from vscan_client.cli.question_file import BadLine, Id, QuestionLine


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
    tls_cert: shared.TlsCertOption = None,
    tls_key: shared.TlsKeyOption = None,
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
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        token_file=token_file,
        timeout_s=timeout,
        trace_console=trace_console,
        otlp_endpoint=otlp_endpoint,
    )
    lines = read_questions(questions)
    with connection.telemetry() as telemetry, AnswerFile(out or questions.with_suffix(".answers.jsonl")) as answers:
        batch = Batch([_Line(line, questions.parent) for line in lines], answers)
        try:
            asyncio.run(_ask_all(batch, connection, telemetry, concurrency))
        finally:
            print(batch.told(), file=sys.stderr)
    if batch.failed:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file as a question of a batch."""

    line: QuestionLine | BadLine
    folder: Path

    @property
    def id(self) -> Id:
        return self.line.id

    @property
    def meta(self) -> Any:
        return getattr(self.line, "meta", None)

    def prepare(self) -> Prepared:
        from vscan_client.cli.question_file import BadLine
        from vscan_client.cli.questions import parse_files

        if isinstance(self.line, BadLine):
            raise self.line.error
        options, sampling = self.line.options.ask_options(), self.line.options.frame_sampling()
        visuals = parse_files(self.line.images, self.line.videos, sampling, self.folder)
        return Prepared(visuals, self.line.question, options)


async def _ask_all(batch: Batch, connection: shared.Connection, telemetry: Telemetry | None, concurrency: int) -> None:
    """Raises the error of a server that cannot be reached at all."""
    from vscan_client import AsyncClient

    async with AsyncClient(**connection.client_arguments(telemetry, shared.patient_retry(concurrency))) as client:
        if batch.left:
            await client.describe()
        await batch.run(client, concurrency)
