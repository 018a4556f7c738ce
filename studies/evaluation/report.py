"""What a run came to: a table for people, a summary for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import vscan
from studies.evaluation.task import Scores
from vscan_client import Description


@dataclass(slots=True)
class Traffic:
    """What the answers cost, collected from their records.

    Attributes:
        unreduced, after_stage_1, average: visual tokens of each answer about an image or a video: of all patches; that the
            encoder left; on average over the language model's layers.
        after_layer: pruning layer → visual tokens that went on from it, of each answer.
    """

    unreduced: list[int] = field(default_factory=list)
    after_stage_1: list[int] = field(default_factory=list)
    after_layer: dict[int, list[int]] = field(default_factory=dict)
    average: list[float] = field(default_factory=list)
    completion: list[int] = field(default_factory=list)
    first_token_ms: list[float] = field(default_factory=list)
    places: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Counts an answer's record."""
        self.completion.append(record["usage"]["completion_tokens"])
        self.first_token_ms.append(record["timings"]["time_to_first_token_ms"])
        self.reasons[record["finish_reason"]] += 1
        self.places.update(image["place"] for image in record["images"])
        if record["images"]:
            self._add_tokens(record["usage"], record["pruning"])

    def _add_tokens(self, usage: Mapping[str, Any], pruning: Sequence[Mapping[str, Any]]) -> None:
        self.unreduced.append(usage["visual_tokens_unreduced"])
        self.after_stage_1.append(usage["visual_tokens"])
        self.average.append(usage["visual_tokens_average"])
        for pruned in pruning:
            self.after_layer.setdefault(pruned["layer"], []).append(pruned["tokens_after"])

    def summary(self) -> dict[str, Any]:
        """Means over the answers, of visual tokens over those about an image or a video; nothing where there are none."""
        if not self.completion:
            return {}
        tokens = (
            {
                "unreduced": fmean(self.unreduced),
                "after_stage_1": fmean(self.after_stage_1),
                "after_layer": {str(layer): fmean(counts) for layer, counts in sorted(self.after_layer.items())},
                "average_over_layers": fmean(self.average),
            }
            if self.average
            else None
        )
        return {
            **({"visual_tokens": tokens} if tokens else {}),
            "completion_tokens": fmean(self.completion),
            "time_to_first_token_ms": {"mean": fmean(self.first_token_ms), "median": median(self.first_token_ms)},
            "places": dict(self.places),
            "finish_reasons": dict(self.reasons),
        }


def summary_of(
    *,
    task: str,
    files: Sequence[str],
    scores: Scores | None,
    asked: int,
    failed: Mapping[str, int],
    traffic: Traffic,
    settings: Mapping[str, Any],
    description: Description,
) -> dict[str, Any]:
    """The summary as JSON values.

    `files` are those of questions and labels; `failed` says how many questions ended in which error: then there are no scores,
    or their notes say how these questions count.
    """
    return {
        "task": task,
        "files": list(files),
        "metric": scores.metric if scores else None,
        "score": scores.value if scores else None,
        "unit": scores.unit if scores else None,
        "n": scores.n if scores else 0,
        "questions": asked,
        "failed": dict(failed),
        "further": dict(scores.further) if scores else {},
        "categories": _tables(scores) if scores else {},
        "counts": dict(scores.counts) if scores else {},
        "notes": list(scores.notes) if scores else [],
        **traffic.summary(),
        "settings": dict(settings),
        "server": description.to_dict(),
        "versions": {"vscan": vscan.__version__, "server": description.decoder.release},
    }  # fmt: skip


def table_of(title: str, scores: Scores) -> list[str]:
    """Lines to print: the headline, further numbers, categories, counts, notes."""
    lines = [f"{title}: {scores.metric} {_shown(scores.value, scores.unit)} ({scores.n:,} questions)"]
    lines += _aligned([(name, _shown(value, scores.unit), "") for name, value in scores.further.items()])
    for name, categories in scores.categories.items():
        lines += ["", name]
        lines += _aligned([(each, _shown(score.value, scores.unit), f"{score.n:,}") for each, score in categories.items()])
    if scores.counts:
        lines += ["", *_aligned([(name, f"{count:,}", "") for name, count in scores.counts.items()])]
    return lines + [f"note: {note}" for note in scores.notes]


def traffic_line(summary: Mapping[str, Any]) -> list[str]:
    """One line, or none where nothing was answered: visual tokens at every stage."""
    if "visual_tokens" not in summary:
        return []
    tokens = summary["visual_tokens"]
    steps = [f"{tokens['unreduced']:.1f}", f"{tokens['after_stage_1']:.1f} from the encoder"]
    steps += [f"{count:.1f} from layer {layer} on" for layer, count in tokens["after_layer"].items()]
    return ["", f"visual tokens: {' → '.join(steps)}; {tokens['average_over_layers']:.1f} on average over the layers"]


def _tables(scores: Scores) -> dict[str, Any]:
    return {
        name: {each: {"score": score.value, "n": score.n} for each, score in table.items()}
        for name, table in scores.categories.items()
    }


def _shown(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}".rstrip()


def _aligned(cells: Sequence[tuple[str, str, str]]) -> Iterable[str]:
    names, values, counts = (max((len(cell[i]) for cell in cells), default=0) for i in range(3))
    return [f"  {name:<{names}}  {value:>{values}}  {count:>{counts}}".rstrip() for name, value, count in cells]
