"""The tables of docs/load.md, from the kept run of `vscan bench --compare`; its text is written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.pages.markdown import table
from scripts.protos import ROOT
from studies.load.report import read_report
from studies.load.tables import ratio

KEPT = ROOT / "bench" / "results" / "load-cpu-2-cores.json"
PICTURE = ROOT / "docs" / "images" / "load.png"
_BEGIN, _END = "<!-- kept run: written by make docs -->", "<!-- end of kept run -->"
_WHOLE_FROM_MS = 100


def load_page() -> str:
    """docs/load.md with its part about the kept run written anew. Raises InvalidArgument for a report of another form."""
    text = (ROOT / "docs" / "load.md").read_text()
    before, rest = text.split(_BEGIN)
    _, after = rest.split(_END)
    made = kept_run(read_report(KEPT)) if KEPT.exists() else "No run is kept."
    return f"{before}{_BEGIN}\n{made}\n{_END}{after}"


def kept_run(report: Mapping[str, Any]) -> str:
    """The picture, if there is one, and for each case two tables: figures, and the gain of each step."""
    where, targets, options = report["environment"], report["targets"], report["options"]
    loop = "an open loop" if options["clients"] is None else f"a closed loop of {options['clients']} clients"
    parts = [
        f"[The kept run](../bench/results/{KEPT.name}) of {report['made']}: {where['cores']} cores of {where['processor']}, "
        f"torch {where['torch']}, transformers {where['transformers']}, model `{options['model']}`, {loop}, "
        f"{options['rounds']} rounds. Good is a first token within {targets['ttft_ms']:g} ms and later ones within "
        f"{targets['tpot_ms']:g} ms each on average."
    ]
    if PICTURE.exists():
        parts.append(f"![Goodput and times to the first token of each step.](images/{PICTURE.name})")
    for case in report["cases"]:
        parts += [f"### {case['label'].capitalize()}", _figures(case), _gains(case)]
    return "\n\n".join(parts)


def _figures(case: Mapping[str, Any]) -> str:
    head = ["", "good a second", "answered a second", "first token p50, p95, p99, ms", "later tokens p50, p99, ms"]
    head += ["images from memory or Redis", "visual tokens, average over layers", "processor s", "failed"]
    return table(head, [_row(one) for one in case["configurations"]])


def _row(one: Mapping[str, Any]) -> list[str]:
    first, later, hits = one["ttft_ms"] or {}, one["tpot_ms"] or {}, one["hit_rates"]
    computing = {name: seconds for name, seconds in one["busy_s"].items() if name != "load"}
    return [
        one["label"],
        f"{one['goodput_per_s']:.2f}",
        f"{one['requests_per_s']:.2f}",
        _known(first, "p50", "p95", "p99"),
        _known(later, "p50", "p99"),
        f"{sum(hits.get(place, 0.0) for place in ('memory', 'redis')):.0%}" if hits else "",
        "" if one["tokens"]["visual_average_mean"] is None else f"{one['tokens']['visual_average_mean']:.1f}",
        ", ".join(f"{name} {seconds:.1f}" for name, seconds in computing.items()),
        str(sum(one["failures"].values())),
    ]


def _known(times: Mapping[str, float | None], *names: str) -> str:
    """A dash where there were too few requests for a percentile."""
    values = [times.get(name) for name in names]
    return ", ".join("-" if value is None else _ms(value) for value in values) if times else ""


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= _WHOLE_FROM_MS else f"{value:.1f}"


def _gains(case: Mapping[str, Any]) -> str:
    labels = {one["name"]: one["label"] for one in case["configurations"]}
    rows = [
        [
            f"{labels[gain['from']]} → {labels[gain['to']]}",
            ratio(gain["goodput"]),
            ratio(gain["requests"]),
            ratio(gain["ttft_p50"]),
            ratio(gain["ttft_p95"]),
        ]
        for gain in case["gains"]
    ]
    return table(["step", "goodput", "answered", "first token sooner, p50", "p95"], rows)
