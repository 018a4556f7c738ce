"""Runs the demo: `make demo`, or `SEED=7 make demo`. Exits non-zero if a part of it failed.

round 1   every picture for the first time            the vision transformer runs
round 2   another question about every picture        found in the decoder's memory
          the decoder is restarted: its memory is empty, Redis is not
round 3   a third question                            found in Redis
round 4   a fourth                                    found in memory again
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from demo.asking import Asked, ask_round
from demo.pictures import write_picture
from demo.table import answer_table
from demo.trace_tree import draw, problem_of
from embedded_model.album import Picture, draw_album
from tests.support.otlp_collector import CollectedSpan, OtlpCollector
from vscan.errors import VScanError
from vscan.telemetry.setup import setup_tracing
from vscan_client import Client, Place
from vscan_client.cli.local_stack import ANY_PORT, LocalStack

PICTURES = 12
QUESTIONS = 6
LEAST_ACCURACY = 0.85
OUT = Path("demo_out")
RESTART_AFTER_ROUND = 3
CLIENT_SERVICE = "vscan-client"
ENCODER_SERVICE = "vscan-encoder"
SERVICES = frozenset({CLIENT_SERVICE, "vscan-decoder", ENCODER_SERVICE})


def main() -> int:
    """Asks, prints, draws, checks; returns the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        seed = int(os.environ.get("SEED") or 0)
    except ValueError:
        console.print(f"SEED: {os.environ['SEED']!r} is not a whole number")
        return 1
    album = draw_album(seed, pictures=PICTURES, questions=QUESTIONS)
    try:
        with OtlpCollector() as collector:
            asked = _ask(album, collector, console)
            spans = collector.spans
    except VScanError as error:
        console.print(f"[red]the demo did not run:[/] {error}")
        return 1
    console.print(answer_table(asked))
    _draw_pictures(album, asked)
    _show_traces(asked, spans, console)
    problems = [*_problems(asked), *_trace_problems(asked, spans)]
    accuracy = sum(row.correct for row in asked) / len(asked)
    console.print(f"accuracy {accuracy:.0%} of {len(asked)} questions (seed {seed}); pictures of what was kept are in {OUT}/")
    for problem in problems:
        console.print(f"[red]failed:[/] {problem}")
    return 1 if problems else 0


def _ask(album: Sequence[Picture], collector: OtlpCollector, console: Console) -> list[Asked]:
    """All rounds, through the SDK. The services have ended, and sent their last spans, when it returns."""
    telemetry = setup_tracing(CLIENT_SERVICE, otlp_endpoint=collector.endpoint)
    asked: list[Asked] = []
    seen: set[str] = set()
    console.print("starting Redis, the encoder and the decoder …")
    with LocalStack(decoder_bind=ANY_PORT, encoder_bind=ANY_PORT, otlp_endpoint=collector.endpoint) as stack:
        for number in range(QUESTIONS):
            with Client(server=stack.addresses.decoder, tracer_provider=telemetry.tracer_provider) as client:
                asked += ask_round(client, album, number, seen)
            if number + 1 == RESTART_AFTER_ROUND:
                console.print("restarting the decoder: what it remembers of the pictures is gone, what Redis holds is not …")
                stack.restart("decoder")
    telemetry.shutdown()
    return asked


def _draw_pictures(album: Sequence[Picture], asked: Sequence[Asked]) -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    for picture in album:
        row = next(row for row in asked if row.picture is picture)
        write_picture(OUT / f"{picture.name}.png", row)


def _problems(asked: Sequence[Asked]) -> Iterator[str]:
    accuracy = sum(row.correct for row in asked) / len(asked)
    if accuracy < LEAST_ACCURACY:
        yield f"accuracy {accuracy:.0%}, at least {LEAST_ACCURACY:.0%} is expected"
    for row in asked:
        if not row.spared:
            story = "a repeated picture" if row.repeated else "a new picture"
            yield f"{row.picture.name}: {story} was found in {row.image.place}"
    if not any(row.image.place is Place.REDIS for row in asked):
        yield "nothing was found in Redis after the restart"


def _trace_problems(asked: Sequence[Asked], spans: Sequence[CollectedSpan]) -> Iterator[str]:
    for row in asked:
        services = SERVICES if row.image.place is Place.ENCODED else SERVICES - {ENCODER_SERVICE}
        problem = problem_of(_trace_of(row, spans), services)
        if problem:
            yield f"the trace of {row.picture.name}, {row.question.text!r}, is not one tree: {problem}"


def _show_traces(asked: Sequence[Asked], spans: Sequence[CollectedSpan], console: Console) -> None:
    """A cold and a repeated question's."""
    for repeated, title in ((False, "a new picture"), (True, "the same picture again")):
        row = next(row for row in asked if row.repeated is repeated)
        console.print(draw(_trace_of(row, spans), f"{title}: {row.question.text}"))


def _trace_of(row: Asked, spans: Sequence[CollectedSpan]) -> list[CollectedSpan]:
    return [span for span in spans if span.trace_id == row.answer.client.trace_id]


if __name__ == "__main__":
    sys.exit(main())
