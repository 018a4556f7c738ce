"""The table of docs/security.md, from the kept run of `tests.hostile`; its text is written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from scripts.pages.markdown import code, table
from scripts.protos import ROOT

RUN = ROOT / "bench" / "results" / "hostile-cpu-2-cores.json"
_BEGIN, _END = "<!-- hostile: written by make docs -->", "<!-- end of hostile -->"
_HEAD = ("family", "cases", "requests", "at fault", "how they ended", "longest, ms")
_SERVICES = ("encoder", "decoder", "gateway")  # of which a run has those that it watched


def security_page() -> str:
    """The page with its table written anew."""
    before, rest = (ROOT / "docs" / "security.md").read_text().split(_BEGIN)
    _, after = rest.split(_END)
    return f"{before}{_BEGIN}\n{_run()}\n{_END}{after}"


def _run() -> str:
    if not RUN.exists():
        return "No run is kept."
    report = json.loads(RUN.read_text())
    where, bounds = report["environment"], report["bounds_mib"]
    services = [service for service in _SERVICES if service in bounds]
    alone, at_once = (
        _listed([f"{bounds[f'{name}{when}']} MiB of the {name}" for name in services]) for when in ("", "_at_once")
    )
    cases = sum(one["cases"] for one in report["families"][:-1])
    lines = [
        f"[The kept run](../bench/results/{RUN.name}) of {report['made'][:10]}, {where['cores']} cores of "
        f"{where['processor']}: {cases} cases, each alone and then all of them {report['at_once']} at a time; "
        f"{len(report['faults'])} at fault.",
        f"Memory is how far a service's highest resident memory rose. Allowed are {alone} for one request; {at_once} for "
        f"{report['at_once']} at once.",
        "",
        table((*_HEAD, *(f"{name}, MiB" for name in services)), (_row(one, services) for one in report["families"])),
    ]
    return "\n".join(lines)


def _listed(items: Sequence[str]) -> str:
    return f"{', '.join(items[:-1])} and {items[-1]}"


def _row(one: dict[str, Any], services: Sequence[str]) -> list[str]:
    ended = ", ".join(f"{count} {code(status)}" for status, count in sorted(one["statuses"].items(), key=lambda item: -item[1]))
    figures = (f"{one['worst_ms']:.0f}", *(one[f"{name}_mib"] for name in services))
    return [one["family"], *map(str, (one["cases"], one["requests"], one["faults"])), ended, *map(str, figures)]
