"""The tables of docs/capacity.md, from the kept profile, validation and check; its text is written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from bench.capacity.commands.plan import lines
from bench.capacity.curve import Curve
from bench.capacity.demand import Demand
from bench.capacity.planning.plan import plan
from bench.capacity.profile import Profile
from scripts.pages.markdown import code, table
from scripts.protos import ROOT

_RESULTS = ROOT / "bench" / "results"
PROFILE, GPU_PROFILE = _RESULTS / "capacity-profile-cpu-2-cores.json", _RESULTS / "capacity-profile-h200.json"
VALIDATION, CHECK = _RESULTS / "capacity-validation-cpu-2-cores.json", _RESULTS / "capacity-check.json"
_NONE = "No run is kept."
# The options of the worked example stand in the page's text, too.
EXAMPLE = Demand(
    requests_per_second=40,
    pixels=336 * 336,
    repeat_rate=0.7,
    repeated_images=1000,
    question_tokens=8,
    answer_tokens=16,
    ttl_s=3600,
    target_ms=500,
)


def capacity_page() -> str:
    """The page with its tables written anew; one whose run is not kept says so."""
    text = (ROOT / "docs" / "capacity.md").read_text()
    parts: dict[str, Callable[[], str]] = {
        "profile": _profile,
        "example": _example,
        "gpu": _gpu,
        "validation": _validation,
        "check": _check,
    }
    for name, make in parts.items():
        begin, end = f"<!-- {name}: written by make docs -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def _profile() -> str:
    if not PROFILE.exists():
        return _NONE
    profile = Profile.load(PROFILE)
    return "\n".join(
        [
            f"[The kept profile](../bench/results/{PROFILE.name}) of {profile.made}: {profile.device}; "
            f"model {code(profile.model)}.",
            "",
            table(["figure", "values"], _figures(profile)),
        ]
    )


def _figures(profile: Profile) -> Sequence[Sequence[str]]:
    found = []
    for part in ("encoder", "decoder", "cache", "wire", "client"):
        for name, value in getattr(profile, part):
            if name != "kv" and not isinstance(value, bool):
                found.append([code(f"{part}.{name}"), _value(value)])
    return found


def _value(value: Curve | float | None) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, Curve):
        return ", ".join(f"{size:,.0f}: {_value(one)}" for size, one in value.points)
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.2f}"


def _example() -> str:
    if not PROFILE.exists():
        return _NONE
    return "\n".join(["```", *lines(plan(Profile.load(PROFILE), EXAMPLE)), "```"])


def _gpu() -> str:
    profile = Profile.load(GPU_PROFILE)
    measured = [row for row in _figures(profile) if row[1] != "not measured"]
    lacking = ", ".join(map(code, profile.missing()))
    return "\n".join(
        [
            f"[The profile](../bench/results/{GPU_PROFILE.name}): {profile.device}; {profile.model}.",
            "",
            table(["figure", "values"], measured),
            "",
            f"Not measured: {lacking}; and `decoder.kv.cache_bytes` (`--kv-bytes`).",
        ]
    )


def _validation() -> str:
    if not VALIDATION.exists():
        return _NONE
    report = json.loads(VALIDATION.read_text())
    records = report["scenarios"]
    names = [quantity["name"] for quantity in records[0]["quantities"]]
    rows = [
        [
            record["name"],
            f"{record['per_second']:.1f}",
            _machine(record),
            *(_ratio(quantity) for quantity in record["quantities"]),
        ]
        for record in records
    ]
    return "\n".join(
        [
            f"[The kept run](../bench/results/{VALIDATION.name}) of {report['made']}: {_where(report)}. "
            "Served, simulated (ratio).",
            "",
            table(["load", "a second", "machine", *names], rows),
        ]
    )


def _machine(record: dict[str, Any]) -> str:
    pairs = (f"{decoders:.2f} and {others:.2f}" for decoders, others in (record["slower_before"], record["slower_after"]))
    text = f"{', '.join(pairs)}; {record['foreign_busy']:.0%}"
    again = len(record["unsteady"])
    return text + (f"; repeated {again}" if again else "") + ("" if record["steady"] else "; not steady")


def _ratio(quantity: dict[str, Any]) -> str:
    figures = f"{quantity['served']:.4g}, {quantity['simulated']:.4g}"
    return f"{figures} ({quantity['ratio']:.2f}{'' if quantity['met'] else ', not within 15 %'})"


def _check() -> str:
    if not CHECK.exists():
        return _NONE
    report = json.loads(CHECK.read_text())
    rows = [
        [
            record["name"],
            f"{record['requests_per_second']:g}",
            f"{record['decoders']} ({record['bound']['decoders']})",
            f"{record['encoders']} ({record['bound']['encoders']})",
            f"{record['target_ms']:.0f}",
            f"{record['planned_p95_ms']:.0f}",
            _p95(record["planned"]),
            _least(record, "decoders"),
            _least(record, "encoders"),
            f"{record['ran_s']:.0f}",
            "yes" if record["met"] and record["not_oversized"] else "no",
        ]
        for record in report["cases"]
    ]
    head = ["load", "a second", "decoders", "encoders", "goal, ms", "planned", "simulated", "decoders that suffice"]
    head += ["encoders that suffice", "took, s", "as it should be"]
    return "\n".join(
        [f"[The kept run](../bench/results/{CHECK.name}) of {report['made']}: {_where(report)}.", "", table(head, rows)]
    )


def _least(record: dict[str, Any], kind: str) -> str:
    count = record["least"].get(kind)
    if count is None:
        return "-"
    if record["by_halves"] and count > 1:
        return f"{count} or more (at most {record[kind] / count:.2f})"
    return f"{count} ({record[kind] / count:.2f})"


def _p95(found: dict[str, Any]) -> str:
    lost = sum(count for end, count in found["ends"].items() if end != "answered")
    text = f"{found['first_token_ms']['p95']:.0f}" if found["first_token_ms"] else "-"
    return f"{text} ({lost / found['requests']:.0%} not answered)" if lost else text


def _where(report: dict[str, Any]) -> str:
    return f"{report['environment']['cores']} cores of {report['environment']['processor']}"
