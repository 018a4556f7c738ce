"""The tables of docs/reliability.md, from the kept runs of `tests.faults` and `tests.soak`; its text is written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from scripts.pages.markdown import code, table
from scripts.protos import ROOT

FAULTS = ROOT / "bench" / "results" / "faults-cpu-2-cores.json"
SOAK = ROOT / "bench" / "results" / "soak-cpu-2-cores.json"
_COLUMNS = ("requests", "answered", "equal", "typed_errors", "lost", "duplicated", "retries", "recovery_s")


def reliability_page() -> str:
    """The page with its tables written anew; one whose run is not kept says so."""
    text = (ROOT / "docs" / "reliability.md").read_text()
    parts: dict[str, Callable[[], str]] = {"faults": _faults, "soak": _soak}
    for name, make in parts.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def _faults() -> str:
    if not FAULTS.exists():
        return "No run is kept."
    report = json.loads(FAULTS.read_text())
    rows = [[code(row["fault"]), row["component"], *(_cell(row[name]) for name in _COLUMNS)] for row in report["faults"]]
    missing = [f"Left out: {what} ({why})." for what, why in report["left_out"].items()]
    return "\n".join([_where(FAULTS.name, report), "", table(["fault", "component", *_COLUMNS], rows), *missing])


def _soak() -> str:
    if not SOAK.exists():
        return "No run is kept."
    report = json.loads(SOAK.read_text())
    summary = report["summary"]
    warm = summary["warm_after_s"]
    checks = [[check["name"], f"{check['value']:.4g}", _goal(check)] for check in report["checks"]]
    kinds = [
        [kind, str(each["requests"]), str(each["answered"]), _errors(each["errors"]), _cell(each["median_s"])]
        for kind, each in summary["kinds"].items()
    ]
    lines = [
        _where(SOAK.name, report),
        f"{report['seconds']:.0f} s, {report['clients']} clients, {summary['requests']:,} requests; "
        + ("it never was warm." if warm is None else f"it was warm after {warm:.0f} s."),
        "",
        table(["check", "value", "goal"], checks),
        "",
        table(["kind", "requests", "answered", "errors", "median, s"], kinds),
    ]
    return "\n".join(lines)


def _where(name: str, report: dict[str, Any]) -> str:
    where = report["environment"]
    return f"[The kept run](../bench/results/{name}) of {report['made'][:10]}: {where['cores']} cores of {where['processor']}."


def _goal(check: dict[str, Any]) -> str:
    return f"{check['op']} {check['goal']:.4g}{'' if check['met'] else ', not met'}"


def _errors(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {code(name)}" for name, count in sorted(errors.items()))


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
