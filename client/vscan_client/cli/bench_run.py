"""Runs `vscan bench` once its options are read: checks first what a run of minutes must not end in, then runs, then tells."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vscan.errors import InvalidArgument, StartupError
from vscan_client.cli.extras import missing_extra, needs_extra
from vscan_client.cli.outputs import check_apart, check_file, named_in_errors
from vscan_client.cli.up import sigterm_as_ctrl_c

if TYPE_CHECKING:
    from studies.load.options import BenchOptions

_BAD_INPUT, _INTERRUPTED = 2, 130


def run(options: BenchOptions, json_file: Path | None, plot_file: Path | None) -> None:
    """Prints what came of it, writes the files, and ends with 1 if a request failed, with 130 if it was stopped.

    Raises:
        InvalidArgument: an option that cannot be, an extra that is missing, or a file that cannot be written.
    """
    from studies.load.command import bench
    from studies.load.tables import lines, warnings, write_csv

    with _bad_input_if_missing():
        _check_extras(options, plot_file)
    _check_outputs(json_file, plot_file)
    with sigterm_as_ctrl_c():
        report = bench(options, lambda line: print(line, file=sys.stderr, flush=True))
    # First what needs no disk, then the numbers, then pictures of them.
    print("\n".join(lines(report)), flush=True)
    for warning in warnings(report):
        print(f"vscan: {warning}", file=sys.stderr)
    if json_file is not None:
        with named_in_errors("--json", json_file):
            json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if plot_file is not None:
        from studies.load.plots import plot

        with named_in_errors("--plot", plot_file):
            write_csv(report, plot_file.with_suffix(".csv"))
            plot(report, plot_file)
    if report["broken_off"]:
        print("vscan: stopped before its last round; the figures are of the rounds that were had", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED)
    if any(one["failures"] for case in report["cases"] for one in case["configurations"]):
        raise typer.Exit(1)


def draw_kept(kept: Path, plot_file: Path) -> None:
    """Draws the picture of a report that was written before. Raises InvalidArgument where that cannot be done."""
    from studies.kept.drawing import draw

    with _bad_input_if_missing(), needs_extra("plot", "vscan bench --plot"):
        import matplotlib  # noqa: F401
    _check_plot(plot_file)
    with named_in_errors("--plot", plot_file):
        draw(kept, plot_file)


def _check_outputs(json_file: Path | None, plot_file: Path | None) -> None:
    table = None if plot_file is None else plot_file.with_suffix(".csv")
    check_apart([("--json", json_file), ("--plot", plot_file), ("--plot", table)])
    if json_file is not None:
        check_file("--json", json_file)
    if plot_file is not None and table is not None:
        _check_plot(plot_file)
        check_file("--plot", table)


def _check_plot(file: Path) -> None:
    if file.suffix.lower() != ".png":
        raise InvalidArgument("--plot", f"{file}", limit="a file that ends in .png; the CSV goes beside it")
    check_file("--plot", file)


@contextmanager
def _bad_input_if_missing() -> Iterator[None]:
    try:
        yield
    except StartupError as error:
        print(f"vscan: {error}", file=sys.stderr)
        raise typer.Exit(_BAD_INPUT) from error


def _check_extras(options: BenchOptions, plot_file: Path | None) -> None:
    """Before anything runs: a run of minutes must not end in a missing package."""
    if plot_file is not None:
        with needs_extra("plot", "vscan bench --plot"):
            import matplotlib  # noqa: F401
    if options.openai is not None and find_spec("httpx2") is None:
        raise missing_extra("bench", "vscan bench --peer-url", "httpx2")
    if options.metrics and find_spec("prometheus_client") is None:
        raise missing_extra("bench", "vscan bench --metrics", "prometheus_client")
    if options.computes_here:
        from vscan_client.cli.preflight import check_local

        check_local(None if options.model in (None, "random") else Path(options.model), {})
        from studies.load.setup import check_equal_memory
        from vscan.device import choose_device

        check_equal_memory(options, choose_device(options.device).type)
