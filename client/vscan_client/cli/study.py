"""`vscan study NAME`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vscan.errors import CheckpointError, InvalidArgument
from vscan_client.cli.extras import missing_extra, needs_extra
from vscan_client.cli.outputs import check_folder
from vscan_client.cli.progress import progress
from vscan_client.cli.serve import options_in

if TYPE_CHECKING:
    from studies.study import Study

# Of each extra what would only be missed later, when much work was done.
_NEEDED = {"serve": ("torch", "transformers", "numpy", "PIL"), "plot": ("matplotlib",)}


def study(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which study; --list names all.")] = None,
    show_all: Annotated[
        bool, typer.Option("--list", help="List the studies, or the one of that NAME, with their own options.")
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A folder for NAME.png and NAME.csv; those there are replaced.")
    ] = Path("studies-out"),
    model: Annotated[Path | None, typer.Option("--model", help="Checkpoint directory. Default: the embedded model.")] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="A folder of images, with questions.jsonl as for ask-many. Default: drawn scenes."),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="How many questions, or images, to look at.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which scenes are drawn, or which files of a folder that has more.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
) -> None:
    """Look into a model: a picture, a table and what they say. A study's own options are listed by --list."""
    from studies.catalogue import STUDIES, study_named

    if show_all:
        print("\n".join(_described(each) for each in ([study_named(name)] if name else STUDIES.values())))
        return
    if name is None:
        raise InvalidArgument("study", "which one?", limit=", ".join(STUDIES))
    chosen = study_named(name)
    options = chosen.read_options(list(options_in(ctx.args)))
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise InvalidArgument("--dtype", repr(dtype), limit="auto, float32, bfloat16 or float16")
    command = f"vscan study {name}"
    _check_installed(command)
    check_folder("--out", out, [f"{name}.png", f"{name}.csv"])
    with needs_extra("serve", command):
        from studies.inputs import read_inputs
        from studies.loading import open_model
        from studies.study import Task
        from studies.writing import write_result
    inputs = read_inputs(data, count=count or chosen.count, seed=seed, with_questions=chosen.needs_questions)
    try:
        opened = open_model(model, device=device, dtype=dtype)
        with progress(name, len(inputs.questions if chosen.needs_questions else inputs.pictures)) as shown:
            result = chosen.run(Task(opened, inputs, options, shown.advance))
    except CheckpointError as error:
        raise InvalidArgument("--model", str(error)) from error
    told = "\n".join([f"{chosen.title}: {opened.name}, {inputs.source}", *(f"  {line}" for line in result.findings)])
    print(told, flush=True)
    print("\n".join(map(str, write_result(result, name, out))))


def _check_installed(command: str) -> None:
    for extra, modules in _NEEDED.items():
        for module in modules:
            if find_spec(module) is None:
                raise missing_extra(extra, command, module)


def _described(study: Study) -> str:
    lines = [study.name, f"    {study.summary}"]
    lines += [f"    --{option.name} {option.form}  {option.help}" for option in study.options]
    return "\n".join(lines)
