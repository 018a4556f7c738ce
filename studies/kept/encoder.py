"""Images a second against batch size, of a report of `bench.encoder`. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

IN_PROCESS = "images a second, in process"
SERVED = "images a second, through gRPC, by clients at once"
_LABELS = {
    "transformers": "transformers, plain features",
    "unreduced": "this encoder, all tokens",
    "reduced": "this encoder, 96 of 576 tokens",
}


def plot(summary: Mapping[str, Any], path: Path) -> None:
    """Draws what was measured of it; PNG or whatever the suffix of `path` says."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for side, speeds in summary.get(IN_PROCESS, {}).items():
        axes.plot(list(map(int, speeds)), list(speeds.values()), marker="o", label=_LABELS[side])
    if speeds := summary.get(SERVED):
        axes.plot(
            list(map(int, speeds)), list(speeds.values()), marker="s", linestyle="--", label="the same, files through gRPC"
        )
    axes.set_xlabel("images at once: of a batch, or clients")
    axes.set_ylabel("images a second")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
