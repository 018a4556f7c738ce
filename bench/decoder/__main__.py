"""The command line; see the package."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable

import torch

import bench.decoder
from bench.decoder import decode, linears, memory, overhead, prefill, requests
from bench.decoder.setup import SHAPES, Setup
from bench.harness import Report, run

PARTS: dict[str, Callable[[Setup, Report], None]] = {
    "linears": linears.measure,
    "prefill": prefill.measure,
    "memory": memory.measure,
    "decode": decode.measure,
    "requests": requests.measure,
    "overhead": overhead.measure,
}


def main() -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decoder", description=bench.decoder.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="small", help="of the model: 12 layers of 512, or LLaVA-NeXT-7B's")
    parser.add_argument("--rounds", type=int, default=7, help="alternating runs of each comparison, at least 5")
    parser.add_argument("--only", choices=PARTS, action="append", help="a part alone; may be given again")
    parser.add_argument("--threads", type=int, help="torch's threads; unset: as many as it takes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    return run("bench.decoder", _measure, parser)


def _measure(arguments: argparse.Namespace) -> Report:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    setup, report = Setup.make(arguments), Report()
    report.summary |= {"shape": arguments.shape, "dtype": arguments.dtype, "threads": torch.get_num_threads()}
    for name in arguments.only or PARTS:
        began = time.perf_counter()
        PARTS[name](setup, report)
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        gc.collect()  # engines hold themselves in circles, and of a large model their caches do not fit beside each other
    return report


if __name__ == "__main__":
    sys.exit(main())
