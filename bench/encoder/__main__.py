"""The command line; see the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import bench.encoder
from bench.encoder import passes, served, share
from bench.encoder.setup import VIT_L, Setup
from bench.harness import Report, run
from studies.kept.encoder import plot

PARTS: dict[str, Callable[[Setup, Report], None]] = {
    "passes": passes.measure,
    "share": share.measure,
    "grpc": served.measure,
}
_DTYPES = {"cpu": "float32", "cuda": "bfloat16"}


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.encoder", description=bench.encoder.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=_DTYPES, default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="unset: float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--batches", type=_counts, default=(1, 4, 8), help="images at once, as 1,4,8")
    parser.add_argument("--rounds", type=int, default=7, help="alternating runs of each comparison, at least 3")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part alone; may be given again")
    parser.add_argument("--threads", type=int, help="torch's threads; unset: as many as it takes")
    parser.add_argument("--plot", type=Path, help="draw images a second here")
    return run("bench.encoder", _measure, parser)


def _measure(arguments: argparse.Namespace) -> Report:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = arguments.dtype or _DTYPES[arguments.device]
    report = Report(summary={"shape": "ViT-L/14-336", "dtype": dtype, "threads": torch.get_num_threads()})
    with Setup.made(
        VIT_L,
        device=arguments.device,
        dtype=getattr(torch, dtype),
        batches=arguments.batches,
        rounds=max(3, arguments.rounds),
    ) as setup:
        for name in arguments.only or PARTS:
            PARTS[name](setup, report)
    if arguments.plot:
        plot(report.summary, arguments.plot)
    return report


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(map(int, text.split(",")))
    if min(counts) < 1:
        raise ValueError(text)
    return counts


if __name__ == "__main__":
    sys.exit(main())
