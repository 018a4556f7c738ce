"""`vscan warm DIR…`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vscan.errors import InvalidArgument
from vscan_client.cli import connection as shared
from vscan_client.cli.ask import (
    BudgetOption,
    FpsOption,
    FramesOption,
    LocalShareOption,
    MergeOption,
    ReductionOption,
    SeedOption,
)

if TYPE_CHECKING:
    from vscan.telemetry.providers import Telemetry
    from vscan_client.cli.progress import Shown
    from vscan_client.cli.warming import Warming


def warm(
    paths: Annotated[
        list[str] | None, typer.Argument(metavar="DIR", help="Folders, with all below them; images and videos.")
    ] = None,
    video: Annotated[
        list[str] | None,
        typer.Option("--video", metavar="FILE", help="A file meant as a video, such as a GIF; may be repeated."),
    ] = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Files being encoded at once.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each file.")] = False,
    encoder: shared.ThatEncoderOption = shared.DEFAULT_ENCODER,
    reduction: ReductionOption = None,
    budget: BudgetOption = None,
    local_share: LocalShareOption = None,
    merge: MergeOption = None,
    seed: SeedOption = None,
    tls_ca: shared.TlsCaOption = None,
    tls_cert: shared.TlsCertOption = None,
    tls_key: shared.TlsKeyOption = None,
    insecure: shared.InsecureOption = False,
    token_file: shared.TokenFileOption = None,
    timeout: shared.TimeoutOption = shared.DEFAULT_TIMEOUT_S,
    trace_console: shared.ConsoleOption = False,
    otlp_endpoint: shared.OtlpOption = None,
) -> None:
    """Encode and cache all images and videos of folders that are not cached yet. Ends with 1 if any failed."""
    from vscan_client.cli.media_files import find_media
    from vscan_client.cli.progress import progress
    from vscan_client.cli.questions import QuestionOptions
    from vscan_client.cli.warming import MediaFile, Warming

    connection = shared.Connection(
        encoder=encoder,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        token_file=token_file,
        timeout_s=timeout,
        trace_console=trace_console,
        otlp_endpoint=otlp_endpoint,
    )
    options = QuestionOptions(
        reduction=reduction, budget=budget, local_share=local_share, merge=merge, seed=seed, frames=frames, fps=fps
    )
    spec, sampling = options.ask_options()["reduction"], options.frame_sampling()
    if not paths and not video:
        raise InvalidArgument("arguments", "a folder, an image or a video is needed: vscan warm DIR...")
    found = find_media(paths or [])
    files = [*map(MediaFile, found.files), *(MediaFile(name, as_video=True) for name in video or [])]
    with connection.telemetry() as telemetry, progress("warming", len(files) + len(found.unreadable)) as shown:
        warming = Warming(files, spec, sampling, lambda record: _tell(record, shown, as_json))
        try:
            for name, reason in found.unreadable:
                warming.fail(name, InvalidArgument("file", f"{name}: {reason}"))
            if files:
                asyncio.run(_run(warming, connection, telemetry, concurrency))
        finally:
            shown.say(_summary(warming, found.others))
    if warming.failed:
        raise typer.Exit(1)


async def _run(warming: Warming, connection: shared.Connection, telemetry: Telemetry | None, concurrency: int) -> None:
    from vscan_client import AsyncClient

    async with AsyncClient(**connection.client_arguments(telemetry, shared.patient_retry(concurrency))) as client:
        await warming.run(client, concurrency)


def _tell(record: dict[str, Any], shown: Shown, as_json: bool) -> None:
    if record["outcome"] == "failed":
        shown.say(f"{record['file']}: {record['error']['message']}")
    if as_json:
        print(json.dumps(record), file=sys.stdout, flush=True)
    shown.advance()


def _summary(warming: Warming, others: int) -> str:
    counts = f"{warming.encoded} encoded, {warming.cached} were cached before, {warming.duplicates} were duplicates"
    return f"{counts}, {warming.failed} failed" + (f"; {others} other files left alone" if others else "")
