"""`vscan encode IMAGE…`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vscan_client.cli import connection as shared
from vscan_client.cli.ask import BudgetOption, LocalShareOption, MergeOption, ReductionOption, SeedOption


def encode(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    encoder: Annotated[
        str, typer.Option("--encoder", envvar="VSCAN_ENCODER", help="The encoder's address.")
    ] = shared.DEFAULT_ENCODER,
    reduction: ReductionOption = None,
    budget: BudgetOption = None,
    local_share: LocalShareOption = None,
    merge: MergeOption = None,
    seed: SeedOption = None,
    tls_ca: shared.TlsCaOption = None,
    insecure: shared.InsecureOption = False,
    timeout: shared.TimeoutOption = shared.DEFAULT_TIMEOUT_S,
    trace_console: shared.ConsoleOption = False,
    otlp_endpoint: shared.OtlpOption = None,
) -> None:
    """Encode and cache images before anybody asks about them; prints a line of JSON for each."""
    from vscan_client import Client
    from vscan_client.cli.questions import QuestionOptions, parse_image

    connection = shared.Connection(
        encoder=encoder,
        tls_ca=tls_ca,
        insecure=insecure,
        timeout_s=timeout,
        trace_console=trace_console,
        otlp_endpoint=otlp_endpoint,
    )
    options = QuestionOptions(reduction=reduction, budget=budget, local_share=local_share, merge=merge, seed=seed)
    spec = options.ask_options()["reduction"]
    with connection.telemetry() as telemetry, Client(**connection.client_arguments(telemetry)) as client:
        for image in images:
            print(json.dumps({"file": image, **client.encode(parse_image(image), reduction=spec).to_dict()}), flush=True)
