"""`vscan eval TASK --questions FILE --images DIR`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vscan.errors import InvalidArgument
from vscan_client.cli import ask as of_ask
from vscan_client.cli import connection as shared

if TYPE_CHECKING:
    from studies.evaluation.run import Run


def evaluate(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="Which benchmark; see --list.")] = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="Print the benchmarks and the files that each takes.")] = False,
    questions: Annotated[
        Path | None, typer.Option("--questions", help="The benchmark's file of questions, or the folder that it comes as.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="The folder with its images or videos.")] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="Its labels, where they are in a file of their own.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which part of it, where a file has several.")] = None,
    prompt_suffix: Annotated[
        str | None,
        typer.Option("--prompt-suffix", help="What follows each question, instead of the benchmark's own; may be empty."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first questions, for a trial; whole pairs and turns of them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The summary (JSON); answers go beside it. Default: TASK.json. Goes on with a run that is there."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", help="Also write the answers in the form that the benchmark's server or judge takes; see --list."
        ),
    ] = None,
    judged: Annotated[
        Path | None, typer.Option("--judged", help="Score by a judge model's verdicts on an export, where that is the rule.")
    ] = None,
    failed_as_empty: Annotated[
        bool,
        typer.Option(
            "--failed-as-empty", help="Score although questions failed (an image that cannot be read): as empty answers."
        ),
    ] = False,
    box_form: Annotated[
        str | None,
        typer.Option(
            "--box-form", help="How the model names boxes; see docs/benchmarks.md. Default: as the server's family does."
        ),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Questions under way at once.")] = 8,
    reduction: of_ask.ReductionOption = None,
    budget: of_ask.BudgetOption = None,
    local_share: of_ask.LocalShareOption = None,
    merge: of_ask.MergeOption = None,
    rater: of_ask.RaterOption = None,
    keep: of_ask.KeepOption = None,
    positions: of_ask.PositionsOption = None,
    max_new_tokens: of_ask.MaxNewTokensOption = None,
    temperature: of_ask.TemperatureOption = None,
    top_p: of_ask.TopPOption = None,
    top_k: of_ask.TopKOption = None,
    seed: of_ask.SeedOption = None,
    stop: of_ask.StopOption = None,
    regex: of_ask.RegexOption = None,
    json_schema: of_ask.JsonSchemaOption = None,
    frames: of_ask.FramesOption = None,
    fps: of_ask.FpsOption = None,
    server: shared.ServerOption = shared.DEFAULT_SERVER,
    tls_ca: shared.TlsCaOption = None,
    tls_cert: shared.TlsCertOption = None,
    tls_key: shared.TlsKeyOption = None,
    insecure: shared.InsecureOption = False,
    token_file: shared.TokenFileOption = None,
    timeout: shared.TimeoutOption = shared.DEFAULT_TIMEOUT_S,
) -> None:
    """Ask a benchmark's questions and score the answers by its rule. Ends with 1 if any failed; run it again to go on."""
    from studies.evaluation.catalogue import find_task, listing
    from studies.evaluation.run import Run
    from studies.evaluation.task import Sources
    from vscan_client.cli.questions import QuestionOptions

    if list_tasks:
        print("\n".join(listing()))
        return
    if task is None:
        raise InvalidArgument("task", "which one? `vscan eval --list` prints them")
    chosen = find_task(task)
    if export is not None and "export" not in chosen.takes:
        raise InvalidArgument("--export", f"{chosen.name} has no form of its own to hand answers in")
    if judged is not None and "judged" not in chosen.takes:
        raise InvalidArgument("--judged", f"{chosen.name} is scored without a judge")
    if box_form is not None and "box_form" not in chosen.takes:
        raise InvalidArgument("--box-form", f"{chosen.name} asks for no boxes")
    connection = shared.Connection(
        server=server,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        token_file=token_file,
        timeout_s=timeout,
    )
    if box_form is None and "box_form" in chosen.takes:
        box_form = _box_form(connection)
    sources = Sources(
        questions=_needed(questions, "questions"),
        images=_needed(images, "images"),
        annotations=annotations,
        split=split,
        prompt_suffix=prompt_suffix,
        box_form=box_form,
    )
    options = QuestionOptions(
        reduction=reduction,
        budget=budget,
        local_share=local_share,
        merge=merge,
        rater=rater,
        keep=keep,
        positions=positions,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=tuple(stop or ()),
        regex=regex,
        json_schema=None if json_schema is None else of_ask.text_or_file(json_schema, "json_schema"),
        frames=frames,
        fps=fps,
    )
    run = Run(chosen, sources, options, out or Path(f"{chosen.name}.json"), limit=limit)
    run.check(export, judged)
    asyncio.run(_ask(run, connection, concurrency))
    if not run.conclude(export, judged, failed_as_empty=failed_as_empty):
        raise typer.Exit(1)


def _box_form(connection: shared.Connection) -> str:
    """What the server's family has. Raises the error of a server that cannot be reached."""
    from studies.evaluation.boxes import form_of
    from vscan_client import Client

    with Client(**connection.client_arguments(None)) as client:
        return form_of(client.describe().decoder.family)


async def _ask(run: Run, connection: shared.Connection, concurrency: int) -> None:
    """Raises the error of a server that cannot be reached at all."""
    from vscan_client import AsyncClient

    async with AsyncClient(**connection.client_arguments(None, shared.patient_retry(concurrency))) as client:
        await run.ask(client, concurrency)


def _needed(path: Path | None, name: str) -> Path:
    if path is None:
        raise InvalidArgument(f"--{name}", "missing; `vscan eval --list` says what each benchmark takes")
    return path
