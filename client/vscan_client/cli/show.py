"""`vscan show FILE [FILE…] QUESTION`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vscan.errors import InvalidArgument
from vscan.specs import ReductionMethod
from vscan_client.cli import connection as shared
from vscan_client.cli.ask import (
    FpsOption,
    FramesOption,
    KeepOption,
    LocalShareOption,
    MaxNewTokensOption,
    MergeOption,
    PositionsOption,
    RaterOption,
    ReductionOption,
    SeedOption,
    VideoOption,
    files_and_question,
)
from vscan_client.cli.extras import needs_extra
from vscan_client.cli.outputs import check_folder, named_in_errors

if TYPE_CHECKING:
    from vscan_client import Client
    from vscan_client.content import Visual
    from vscan_client.options import AskOptions
    from vscan_client.show.facts import Column

# A third, two ninths and a ninth of the tokens: the last as an average over the layers, the paper’s own.
_MOST_LETTERS = 20
FILES = ("show.png", "show.html")
DEFAULT_BUDGETS = ("33%", "22%", "avg:11.1%")


def show(
    arguments: Annotated[list[str], typer.Argument(metavar="FILE... QUESTION", help="Images and videos, then the question.")],
    video: VideoOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            help="Visual tokens to keep: 96 of each tile, total:256, 33%, or avg:11.1% over the layers; may be given again, "
            f"each is a column. Unset: {', '.join(DEFAULT_BUDGETS)}.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where show.png and show.html go; those there are replaced.")
    ] = Path("vscan_show"),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: question, files, and an answer for each budget.")
    ] = False,
    reduction: ReductionOption = None,
    local_share: LocalShareOption = None,
    merge: MergeOption = None,
    rater: RaterOption = None,
    keep: KeepOption = None,
    positions: PositionsOption = None,
    max_new_tokens: MaxNewTokensOption = None,
    seed: SeedOption = None,
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
    """Draw what the model was shown of images and videos for a question, at one or several budgets, and print it in words."""
    with needs_extra("show", "vscan show"):
        import PIL  # noqa: F401
    from vscan_client import Client
    from vscan_client.cli.idle_options import refuse_idle
    from vscan_client.cli.questions import QuestionOptions, parse_files
    from vscan_client.show.facts import facts

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
    asked = {
        each: QuestionOptions(
            reduction=reduction,
            budget=budget_text,
            local_share=local_share,
            merge=merge,
            rater=rater,
            keep=keep,
            positions=positions,
            max_new_tokens=max_new_tokens,
            seed=seed,
            report_kept=True,
            frames=frames,
            fps=fps,
        )
        for each, budget_text in _budgets(budget, reduction).items()
    }
    options = {each: question.ask_options() for each, question in asked.items()}
    refuse_idle(next(iter(asked.values())))
    files, question = files_and_question(arguments, video or [])
    visuals = parse_files(files, video or [], next(iter(asked.values())).frame_sampling())
    _check_files(visuals, [*files, *(video or [])])
    check_folder("--out", out, FILES)
    names = _names([*files, *(video or [])])
    with connection.telemetry() as telemetry, Client(**connection.client_arguments(telemetry)) as client:
        columns = _ask(client, visuals, question, options)
    _tell_letters([question, *names, *(column.answer.text for column in columns)])
    written = _write(columns, visuals, names, question, out)
    if as_json:
        print(json.dumps(_as_json(columns, names, question, written), ensure_ascii=False))
        return
    print("\n".join([*facts(columns, names, question), f"written: {', '.join(map(str, written))}"]))


def _names(files: Sequence[str]) -> list[str]:
    """What the files are called, for people: with as many folders as tell them apart; numbers where one is given again."""
    return [_in_one_line(_apart(files, number)) for number in range(len(files))]


def _apart(files: Sequence[str], number: int) -> str:
    paths = [Path(file).parts for file in files]
    for count in range(1, len(paths[number]) + 1):
        ends = [path[-count:] for path in paths]
        if ends.count(ends[number]) == 1:
            return "/".join(ends[number])
    return f"{paths[number][-1]} ({1 + paths[:number].count(paths[number])})"


def _in_one_line(name: str) -> str:
    """What is not UTF-8 in it is marked."""
    return " ".join(os.fsencode(name).decode(errors="replace").split())


def _budgets(given: Sequence[str] | None, reduction: str | None) -> dict[str, str | None]:
    """Budgets by what their columns are called. Raises InvalidArgument for one that keeps nothing back."""
    if reduction != ReductionMethod.NONE:
        return {each: each for each in given or DEFAULT_BUDGETS}
    if given:
        raise InvalidArgument("--budget", f"{given[0]}, and --reduction none keeps all", limit="one of the two")
    return {"none": None}


def _check_files(visuals: Sequence[Visual], files: Sequence[str]) -> None:
    """Before anything is asked. Raises InvalidArgument, and MissingExtra for a video that nothing here can read."""
    from vscan_client.content import Video

    for visual, file in zip(visuals, files, strict=True):
        if not visual.is_whole:
            raise InvalidArgument("arguments", f"{file[:20]}…: only its digest", limit="the file itself, to draw on")
        if isinstance(visual, Video) and not visual.frames:
            with needs_extra("show", "drawing on a video"):
                import av  # noqa: F401


def _ask(client: Client, visuals: Sequence[Visual], question: str, options: dict[str, AskOptions]) -> list[Column]:
    from vscan_client.show.facts import Column

    return [Column(budget, client.ask(list(visuals), question, **each)) for budget, each in options.items()]


def _write(columns: Sequence[Column], visuals: Sequence[Visual], names: Sequence[str], question: str, out: Path) -> list[Path]:
    """Raises InvalidArgument where the folder cannot be written to."""
    from vscan_client.show.page import page
    from vscan_client.show.sheet import sheet
    from vscan_client.show.stages import shown

    drawn = shown(columns, visuals, names, question)
    picture, text = (out / name for name in FILES)
    with named_in_errors("--out", out):
        out.mkdir(parents=True, exist_ok=True)
        sheet(drawn).save(picture, optimize=True)
        text.write_text(page(drawn), encoding="utf-8")
    return [picture, text]


def _tell_letters(texts: Sequence[str]) -> None:
    from vscan_client.show.fonts import without_letters

    if lacking := without_letters(texts):
        shown = lacking if len(lacking) <= _MOST_LETTERS else f"{lacking[:_MOST_LETTERS]}…"
        print(f"vscan: {FILES[0]} has boxes for {shown}, which no font here has; {FILES[1]} shows them", file=sys.stderr)


def _as_json(columns: Sequence[Column], names: Sequence[str], question: str, written: Sequence[Path]) -> dict[str, Any]:
    answers = [{"budget": column.budget, **column.answer.to_dict()} for column in columns]
    return {"question": question, "names": list(names), "files": [str(path) for path in written], "answers": answers}
