"""What a picture says, in words: for terminals, screen readers and captions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vscan_client.answer import Answer, ImageReport, PickedBy, PruneReport
from vscan_client.show.geometry import View

SCANS = {
    PickedBy.LOCAL: "by the local scan",
    PickedBy.GLOBAL: "by the global scan",
    PickedBy.RANDOM: "at random",
    PickedBy.ALL: "as nothing was dropped",
    PickedBy.POOL: "as means of cells",
    PickedBy.NEWLINE: "ends of rows",
    PickedBy.CLASS: "[CLS] tokens",
    PickedBy.UNKNOWN: "for a reason not known here",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One budget, by the name that its picture gets, and what was answered with it."""

    budget: str
    answer: Answer


def counts_text(column: Column) -> str:
    """`576 → 190 → 63 visual tokens`."""
    usage = column.answer.usage
    counts = [usage.visual_tokens_unreduced, usage.visual_tokens, *(layer.tokens_after for layer in column.answer.pruning)]
    return f"{' → '.join(map(str, counts))} visual tokens"


def average_text(column: Column) -> str:
    """What that is over the layers, as a number and a share."""
    usage = column.answer.usage
    share = usage.visual_tokens_average / max(1, usage.visual_tokens_unreduced)
    return f"{usage.visual_tokens_average:.1f} ({share:.1%}) on average over the layers"


def scans_text(report: ImageReport) -> str:
    """`190 of 576 kept: 95 by the local scan, 95 by the global scan`."""
    counts = Counter(report.kept.picked_by if report.kept else ())
    parts = ", ".join(f"{counts[scan]} {words}" for scan, words in SCANS.items() if counts[scan])
    return f"{report.tokens_after} of {report.tokens_before} kept: {parts}"


def merged_text(report: ImageReport) -> str:
    """How many patches were merged into how many tokens."""
    own = set(report.kept.kept_indices) if report.kept else set()
    holders = report.kept.merged_into if report.kept else ()
    return _merged_text(list(Counter(token for place, token in enumerate(holders) if place not in own).values()))


def _merged_text(sizes: Sequence[int]) -> str:
    """Of the number of patches that each token holds beside its own."""
    if not sizes:
        return "nothing was merged"
    patches = "1 patch" if sum(sizes) == 1 else f"{sum(sizes)} patches"
    tokens = "1 token" if len(sizes) == 1 else f"{len(sizes)} tokens"
    return f"{patches} merged into {tokens}, at most {max(sizes)} into one"


def layer_text(layer: PruneReport, visual: int) -> str:
    """`63 of 190 went on past layer 16`, of one image or video."""
    own = f"{len(layer.survivors[visual])}" if visual < len(layer.survivors) else "an unreported number"
    return f"{own} of its tokens went on past layer {layer.layer}"


def facts(columns: Sequence[Column], names: Sequence[str], question: str) -> Iterator[str]:
    """The lines that `vscan show` prints."""
    yield f"question: {question}"
    for column in columns:
        yield f"budget {column.budget}: {counts_text(column)}, {average_text(column)}"
        for index, (name, report) in enumerate(zip(names, column.answer.images, strict=True)):
            layers = [layer_text(layer, index) for layer in column.answer.pruning]
            yield f"  {name}: {'; '.join([scans_text(report), merged_text(report), *layers])}"
        yield f"  answer: {column.answer.text.strip()}"


def part_texts(view: View, layers: Sequence[PruneReport]) -> list[str]:
    """The same of one tile of an image that has several: what was kept of it, merged, and went on past each layer."""
    both = (*view.marks, *view.newlines)
    scans = Counter(mark.picked_by for mark in both)
    parts = ", ".join(f"{scans[scan]} {words}" for scan, words in SCANS.items() if scans[scan])
    patches = view.rows * view.columns
    sizes = [len(mark.merged) for mark in view.marks if mark.merged]
    past = [
        f"{sum(all(mark.survives[: number + 1]) for mark in both)} of {len(both)} tokens went on past layer {layer.layer}"
        for number, layer in enumerate(layers)
    ]
    return [f"{len(both)} tokens of {patches} patches: {parts}", _merged_text(sizes), *past]


def band_texts(views: Sequence[View], report: ImageReport, layers: Sequence[PruneReport], visual: int) -> list[str]:
    """What stands below the panels of a band: of the whole image or video, or of one of its tiles."""
    if report.frames is None and report.kept is not None and len(report.kept.tiles) > 1:
        return part_texts(views[0], layers)
    return [scans_text(report), merged_text(report), *(layer_text(layer, visual) for layer in layers)]


def place_text(view: View, report: ImageReport) -> str:
    """What a view shows of its image or video: a frame by its time, the whole or the parts of an image cut into tiles."""
    if view.frame is not None and report.frames is not None:
        return f"{report.frames.seconds[view.frame]:.2f} s"
    if report.kept is None or len(report.kept.tiles) == 1:
        return ""
    grid = f"{view.rows} × {view.columns} patches"
    return f"the whole image, {grid}" if view.tile == 0 else f"its parts at a higher resolution, {grid}"
