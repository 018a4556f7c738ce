"""`vscan tune`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from vscan.errors import InvalidArgument
from vscan.specs import KeepRatio, Rater
from vscan_client.cli.questions import parse_keep
from vscan_client.cli.up import by_service, sigterm_as_ctrl_c

if TYPE_CHECKING:
    from studies.tune.grid import Wanted
    from studies.tune.questions import Question

V = TypeVar("V")
_COUNT = 350  # of the embedded model's questions: 50 scenes, 7 each
_MOST_LAYERS = 1000
_NEEDED = {"torch": "serve", "numpy": "serve", "transformers": "serve", "matplotlib": "plot"}


def tune(
    model: Annotated[Path | None, typer.Option("--model", help="Checkpoint directory. Default: the embedded model.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder with questions.jsonl (lines of `ask-many`, each with its `answer`) and its images. "
            "Default: drawn scenes that the embedded model has not seen.",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Most questions that are asked, spread over the file.")] = _COUNT,
    shallow_layer: Annotated[
        str | None, typer.Option("--shallow-layer", metavar="N,N…", help="Layers, from 0, that the local scan reads.")
    ] = None,
    window: Annotated[str | None, typer.Option("--window", metavar="N,N…", help="Sides of its windows, in tokens.")] = None,
    local_share: Annotated[
        str | None, typer.Option("--local-share", metavar="X,X…", help="Shares of the budget that it takes, 0 to 1.")
    ] = None,
    prune_layer: Annotated[
        str | None, typer.Option("--prune-layer", metavar="N,N…", help="Pruning layers; 8+16 is two of them in one deployment.")
    ] = None,
    rater: Annotated[str | None, typer.Option("--rater", metavar="NAME,…", help=f"Raters: {', '.join(Rater)}.")] = None,
    budget: Annotated[str | None, typer.Option("--budget", metavar="B,B…", help="Budgets: avg:11.1%, 33% or 96.")] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="X%,X%…",
            help="Shares of the visual tokens that survive each pruning layer, or `default`. An avg budget stays what it is: "
            "stage 1 keeps more or less.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where everything goes.")] = Path("vscan-tune"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the points that DIR has.")] = False,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", min=0, max=100, help="How much accuracy may be lost to the best, in percentage points."),
    ] = 1.0,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")] = 16,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=256, help="Questions under way at once.")] = 8,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N, for both services.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or float16, for both.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "-s", "--set", metavar="SERVICE.NAME=VALUE", help="Any other setting of the services: decoder.max_queue=8."
        ),
    ] = None,
) -> None:
    """Find the cheapest settings that lose no accuracy on your questions: a plot, a CSV, a file for `vscan up --settings`.

    Every combination of the values given is measured, with controls, through services that are started and restarted here. The
    first value of an option is the one that controls are measured at. Accuracy is exact match; see docs/tuning.md.
    """
    _check_installed()
    from studies.tune.tuning import Task, tune

    wanted = _wanted(shallow_layer, window, local_share, prune_layer, rater, budget, keep)
    given = by_service(settings or [], device=device, dtype=dtype)
    _check_settings(given, wanted)
    task = Task(
        model=model,
        questions=_questions(model, data, count),
        data="drawn scenes" if data is None else f"of {data}",
        wanted=wanted,
        settings=given,
        out=out,
        resume=resume,
        tolerance=tolerance / 100,
        concurrency=concurrency,
        max_new_tokens=max_new_tokens,
        command=shlex.join(["vscan", *sys.argv[1:]]),
    )
    with sigterm_as_ctrl_c():
        try:
            tune(task, say=_say)
        except KeyboardInterrupt:
            print(f"stopped; what was measured is in {out}, --resume goes on", file=sys.stderr)
            raise


def _check_settings(given: Mapping[str, Mapping[str, str]], wanted: Wanted) -> None:
    """Raises InvalidArgument for a setting that the run's own would take the place of."""
    for name in ("kv_reuse", "prune_keep"):
        if name in given["decoder"]:
            raise InvalidArgument("-s", f"decoder.{name} is chosen by the run itself")
    varied = {
        ("encoder", "shallow_layer"): ("--shallow-layer", wanted.shallow_layers),
        ("encoder", "window"): ("--window", wanted.windows),
        ("encoder", "reduction_local_share"): ("--local-share", wanted.local_shares),
        ("decoder", "prune_layers"): ("--prune-layer", wanted.prune_layers),
        ("decoder", "prune_rater"): ("--rater", wanted.raters),
    }
    for (service, name), (option, values) in varied.items():
        if values and name in given[service]:
            raise InvalidArgument("-s", f"{service}.{name} beside {option}", limit="one of the two")


def _say(line: str) -> None:
    print(line, flush=True)


def _check_installed() -> None:
    """Raises InvalidArgument with the pip command."""
    extras = list(dict.fromkeys(extra for module, extra in _NEEDED.items() if find_spec(module) is None))
    if extras:
        missing = next(module for module in _NEEDED if find_spec(module) is None)
        raise InvalidArgument("tune", f"needs {missing}: pip install 'vscan-serve[{','.join(extras)}]'")


def _questions(model: Path | None, data: Path | None, count: int) -> Sequence[Question]:
    from studies.tune.questions import draw_questions, read_folder

    if data is not None:
        return read_folder(data, count)
    if model is not None:
        raise InvalidArgument("--data", "a checkpoint of your own needs questions of your own")
    return draw_questions(count)


def _wanted(
    shallow_layer: str | None,
    window: str | None,
    local_share: str | None,
    prune_layer: str | None,
    rater: str | None,
    budget: str | None,
    keep: str | None,
) -> Wanted:
    from studies.tune.grid import Wanted, check_budget

    return Wanted(
        shallow_layers=_each("--shallow-layer", shallow_layer, _whole(0)),
        windows=_each("--window", window, _whole(1)),
        local_shares=_each("--local-share", local_share, _share, "0 to 1"),
        prune_layers=_each("--prune-layer", prune_layer, _layers),
        raters=_each("--rater", rater, Rater, ", ".join(Rater)),
        budgets=_each("--budget", budget, check_budget),
        keeps=_each("--keep", keep, _kept),
    )


def _each(option: str, text: str | None, read: Callable[[str], V], limit: str = "") -> tuple[V, ...]:
    """`1,2` as two values, each once. Raises InvalidArgument that names the option and the value that cannot be read."""
    if text is None:
        return ()
    values = []
    for part in text.split(","):
        try:
            values.append(read(part.strip()))
        except (ValueError, InvalidArgument) as error:
            told = (error.problem, error.limit) if isinstance(error, InvalidArgument) else (f"{part.strip()!r}", limit)
            raise InvalidArgument(option, told[0], limit=told[1]) from error
    return tuple(dict.fromkeys(values))


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= _MOST_LAYERS):
            raise InvalidArgument("", f"{text!r}", limit=f"{least} to {_MOST_LAYERS}")
        return int(text)

    return read


def _share(text: str) -> float:
    if not 0 <= (share := float(text)) <= 1:
        raise InvalidArgument("", f"{text!r}", limit="0 to 1")
    return share


def _kept(text: str) -> float | None:
    if text == "default":
        return None
    try:
        budgets = parse_keep(text)
    except InvalidArgument as error:
        raise InvalidArgument("", error.problem, limit=error.limit) from error
    (kept,) = budgets
    if not isinstance(kept, KeepRatio):
        raise InvalidArgument("", f"{text!r}", limit="a share, such as 33%, or default")
    return kept.fraction


def _layers(text: str) -> tuple[int, ...]:
    layers = tuple(map(_whole(1), text.split("+")))
    if list(layers) != sorted(set(layers)):
        raise InvalidArgument("", f"{text!r}", limit="layers that ascend")
    return layers
