"""The report as lines for a terminal, and as CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.load.figures import PERCENTILES

_TIMES = ("ttft_ms", "tpot_ms", "gap_ms", "total_ms")
_MOST_OF_A_MESSAGE = 200


def lines(report: Mapping[str, Any]) -> list[str]:
    """What a person wants to know first."""
    said = []
    for case in report["cases"]:
        said.append(f"{case['label']}:")
        for one in case["configurations"]:
            said += _about(one)
        said += [f"  {_gain_line(gain, _labels(case))}" for gain in case["gains"]]
    return said


def warnings(report: Mapping[str, Any]) -> list[str]:
    """What makes a run worth less: failures, and a generator that could not keep up."""
    found = []
    for case in report["cases"]:
        for one in case["configurations"]:
            who = f"{case['label']}, {one['label']}"
            if one["failures"]:
                codes = ", ".join(f"{count} {code}" for code, count in one["failures"].items())
                found.append(f"{who}: {codes} of {one['requests']} requests; {_first_message(one['failure_examples'])}")
            if one["miscounted"]:
                found.append(
                    f"{who}: {one['miscounted']} answers came without a count of their tokens, or with one that cannot be; "
                    "their pieces were counted"
                )
            if one["short_answers"]:
                found.append(f"{who}: {one['short_answers']} answers had fewer tokens than were asked for, which is less work")
            if one["generator_fell_behind"]:
                late = one["generator_late_p99_ms"]
                found.append(f"{who}: the generator fell behind: 1 of 100 requests was sent {late:.0f} ms late or more")
    return found


def _first_message(examples: Mapping[str, str]) -> str:
    return next(iter(examples.values()), "")[:_MOST_OF_A_MESSAGE]


def write_csv(report: Mapping[str, Any], path: Path) -> None:
    """A row for each case and configuration."""
    rows = [_row(case, one) for case in report["cases"] for one in case["configurations"]]
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def ratio(interval: Mapping[str, Any] | None) -> str:
    """`2.1× (1.9 to 2.4)`."""
    if interval is None:
        return "-"
    if interval["low"] is None:
        return f"{interval['ratio']:.2f}×"
    return f"{interval['ratio']:.2f}× ({interval['low']:.2f} to {interval['high']:.2f})"


def _about(one: Mapping[str, Any]) -> list[str]:
    said = [
        f"  {one['label']}: {one['goodput_per_s']:.2f} good requests/s ({one['good_share']:.0%} of {one['requests']}), "
        f"{one['requests_per_s']:.2f} answered/s"
    ]
    for name, title in (("ttft_ms", "first token"), ("tpot_ms", "each token after"), ("total_ms", "whole answer")):
        if times := one[name]:
            said.append(f"    {title}: " + ", ".join(_percentiles(times)) + f" ms, of {times['count']}")
    if one["hit_rates"]:
        said.append("    images found: " + ", ".join(f"{place} {share:.0%}" for place, share in one["hit_rates"].items()))
    tokens = one["tokens"]
    if tokens["visual_before_mean"] is not None:
        said.append(
            f"    visual tokens a request: {tokens['visual_before_mean']:.0f} → {tokens['visual_after_mean']:.0f}, "
            f"{tokens['visual_average_mean']:.1f} on average over the layers"
        )
    busy = ", ".join(f"{name} {seconds:.1f}" for name, seconds in one["busy_s"].items())
    said.append(f"    processor seconds of {one['seconds']:.1f}: {busy}")
    if (steps := one["counters"].get("decoder_step_ms")) is not None:
        passes = one["counters"].get("encoder_pass_ms", 0.0)
        said.append(f"    device seconds: steps of the decoder {steps / 1e3:.1f}, passes of the encoder {passes / 1e3:.1f}")
    return said


def _percentiles(times: Mapping[str, float | None]) -> list[str]:
    """Those that there are enough requests for, then the largest."""
    known = ((f"p{percent}", times[f"p{percent}"]) for percent in PERCENTILES)
    return [f"{name} {value:.1f}" for name, value in (*known, ("most", times["max"])) if value is not None]


def _labels(case: Mapping[str, Any]) -> dict[str, str]:
    return {one["name"]: one["label"] for one in case["configurations"]}


def _gain_line(gain: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    return (
        f"{labels[gain['from']]} → {labels[gain['to']]}: goodput {ratio(gain['goodput'])}, "
        f"requests/s {ratio(gain['requests'])}, first token sooner {ratio(gain['ttft_p50'])}"
    )


def _row(case: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"case": case["name"], "configuration": one["name"]}
    row |= {name: one[name] for name in ("requests", "answered", "seconds", "goodput_per_s", "requests_per_s", "good_share")}
    for name in _TIMES:
        stem = name.removesuffix("_ms")
        row |= {f"{stem}_p{percent}_ms": (one[name] or {}).get(f"p{percent}") for percent in PERCENTILES}
    row |= {f"{name}_tokens": one["tokens"][f"visual_{name}_mean"] for name in ("before", "after", "average")}
    row |= {f"busy_{name}_s": seconds for name, seconds in one["busy_s"].items()}
    row |= {f"{name}": one["counters"].get(name) for name in ("decoder_step_ms", "encoder_pass_ms")}
    return row
