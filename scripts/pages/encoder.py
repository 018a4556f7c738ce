"""The table of docs/encoder.md, from the kept run of `bench.encoder`; its text is written by hand."""

# ruff: noqa: E501  (a row of a Markdown table is one line)

from __future__ import annotations

import json
from typing import Any

from scripts.pages.markdown import code, table
from scripts.protos import ROOT

KEPT = ROOT / "bench" / "results" / "encoder-cpu-2-cores.json"
_BEGIN, _END = "<!-- bench: written by make docs -->", "<!-- end of bench -->"
_IN_PROCESS, _SERVED = "images a second, in process", "images a second, through gRPC, by clients at once"
_BARE = "a bare gRPC call with messages of these sizes, ms"
_PARTS = "parts of grpc_overhead_ms, medians"


def encoder_page() -> str:
    """docs/encoder.md with its table written anew; as it is where no run is kept."""
    text = (ROOT / "docs" / "encoder.md").read_text()
    if not KEPT.exists():
        return text
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{_measured(json.loads(KEPT.read_text()))}\n{_END}{after}"


def _measured(report: dict[str, Any]) -> str:
    """Parts that were left out of the run are left out here."""
    summary, where = report["raw"][0], report["environment"]
    lines = [
        f"[The kept run](../bench/results/{KEPT.name}): {where['cores']} cores of {where['processor']} ({where['device']}), {summary['dtype']}, "
        f"{summary['threads']} threads, torch {where['torch']}, transformers {where['transformers']}, {summary['shape']}.",
        "",
        table(["check", "value", "goal"], [_check(check) for check in report["checks"]]),
    ]
    if speeds := _speeds(summary):
        lines += ["", speeds]
    if parts := summary.get(_PARTS):
        lines += ["", f"Of `grpc_overhead_ms`, medians: {', '.join(f'{name} {ms:.2f}' for name, ms in parts.items())}."]
    if bare := summary.get(_BARE):
        lines += [f"A bare gRPC call with messages of the same sizes took {bare:.2f} ms on the machine."]
    return "\n".join(lines)


def _check(check: dict[str, Any]) -> list[str]:
    return [
        code(check["name"]),
        f"{check['value']:.3g}",
        f"{check['op']} {check['goal']:g}{'' if check['met'] else ', not met'}",
    ]


def _speeds(summary: dict[str, Any]) -> str:
    sides = dict(summary.get(_IN_PROCESS, {}))
    if served := summary.get(_SERVED):
        sides["reduced, files through gRPC by so many clients"] = served
    if not sides:
        return ""
    counts = sorted({count for speeds in sides.values() for count in speeds}, key=int)
    rows = [[side, *(f"{speeds[count]:.2f}" if count in speeds else "" for count in counts)] for side, speeds in sides.items()]
    return table(["images a second, of so many at once", *counts], rows)
