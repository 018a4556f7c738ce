"""The command `vscan`. Each command imports what it needs when it runs, so that the base install is enough for asking.

Exit codes: 0 done · 1 an error · 2 bad input, or an extra that is not there · 3 the server is away or busy · 4 no time left ·
130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import vscan
from vscan.errors import DeadlineExceeded, InvalidArgument, MissingImages, ResourceExhausted, Unavailable, VScanError
from vscan_client.cli import (
    ask,
    ask_many,
    bench,
    describe,
    encode,
    evaluate,
    health,
    page,
    serve,
    show,
    study,
    token,
    tune,
    up,
    warm,
)
from vscan_client.cli.extras import MissingExtra

_INTERRUPTED = 130
_CODES: dict[type[VScanError], int] = {
    InvalidArgument: 2,
    Unavailable: 3,
    ResourceExhausted: 3,
    DeadlineExceeded: 4,
    MissingExtra: 2,
}


class Commands(TyperGroup):
    """Ends every command in one way: an error is one line on stderr and a code."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was given."""
        try:
            return super().invoke(ctx)
        except VScanError as error:
            print(f"vscan: {_in_one_line(error)}", file=sys.stderr)
            raise typer.Exit(_CODES.get(type(error), 1)) from error
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read the output has left. Python would complain when it flushes stdout at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None


def _in_one_line(error: VScanError) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, MissingImages) and not error.field.endswith("video"):
        return f"{text}; a video's digest is given with --video"
    unreached = re.match(r"[\w ]+; last error: \w+: (?:ipv[46]:)?(.*)", text)
    return f"no server was reached: {unreached[1]}; `vscan up` starts one here" if unreached else text


app = typer.Typer(
    cls=Commands,
    help="Ask questions about images and videos, and serve the models that answer them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("ask", short_help="Ask a question about images and videos.")(ask.ask)
app.command("ask-many", short_help="Ask every question of a file.")(ask_many.ask_many)
app.command("eval", short_help="Ask and score a benchmark of the field.")(evaluate.evaluate)
app.command("show", short_help="Draw what the model was shown for a question.")(show.show)
app.command("page", short_help="Serve a page to ask on.")(page.page)
app.command("describe", short_help="Print what a deployment serves.")(describe.describe)
app.command("encode", short_help="Encode and cache images and videos.")(encode.encode)
app.command("warm", short_help="Cache all images and videos of folders.")(warm.warm)
app.command("token", short_help="Make a bearer token.")(token.token)
app.command("health", short_help="Ask a service whether it is ready.")(health.health)
app.command("bench", short_help="Put load on a deployment and measure.")(bench.bench)
app.command("up", short_help="Serve a model on this machine.")(up.up)
app.command("tune", short_help="Choose settings for a model.")(tune.tune)
app.command(
    "serve",
    short_help="Run one service.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(serve.serve)
app.command(
    "study",
    short_help="Study what a model's layers look at.",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(study.study)


def _version(wanted: bool) -> None:
    if wanted:
        print(vscan.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs a command (that of the process, unless given) and ends the process with its code."""
    app(args=None if arguments is None else list(arguments), prog_name="vscan")
