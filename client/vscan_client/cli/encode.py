"""`vscan encode FILE…`."""

from __future__ import annotations

import json
from typing import Annotated

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
    VideoOption,
)


def encode(
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE", help="Images and videos.")] = None,
    video: VideoOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
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
    """Encode and cache images and videos before anybody asks about them; prints a line of JSON for each."""
    from vscan_client import Client
    from vscan_client.cli.questions import QuestionOptions, check_sampling, read_files

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
    files, videos = files or [], video or []
    if not files and not videos:
        raise InvalidArgument("arguments", "an image or a video is needed: vscan encode FILE...")
    check_sampling(read_files(files, videos, sampling), sampling)
    with connection.telemetry() as telemetry, Client(**connection.client_arguments(telemetry)) as client:
        for name, visual in zip([*files, *videos], read_files(files, videos, sampling), strict=True):
            print(json.dumps({"file": name, **client.encode(visual, reduction=spec).to_dict()}), flush=True)
