"""`vscan study convergence`: after how many layers predictions are made (VScan, arXiv 2505.22654, empirical studies)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from studies.language.asking import prompts, prune_layers
from studies.language.converged import Convergence, FamilyConvergence, by_family
from studies.language.convergence_plot import draw
from studies.language.lens import read_answer
from studies.study import Cell, Result, Table, Task
from studies.words import counted, percent

# For how large a share of predictions it must be stable where one number is told.
_MOST = 0.95


def run(task: Task) -> Result:
    """Reads the first tokens of each answer after every layer, in both ways of `lens`."""
    tokens, pruned = task.options.get("answer-tokens", 1), prune_layers(task)
    read = [
        (asked.question.family, reading)
        for asked in prompts(task, tokens)
        for reading in read_answer(task.model.language.model, asked.prompt, tokens)
    ]
    families = by_family(read)
    return Result(
        table=_curve(families),
        more={"stable": _stable(families)},
        draw=partial(draw, families=families, pruned=pruned),
        findings=tuple(_findings(families, tokens)),
    )


def _curve(families: Sequence[FamilyConvergence]) -> Table:
    columns = (
        "family",
        "reading",
        "predictions",
        "layers_run",
        "agreement_fraction",
        "kl_mean_nats",
        "kl_lower_quartile_nats",
        "kl_upper_quartile_nats",
        "stable_fraction",
    )
    rows: list[Sequence[Cell]] = []
    for family in families:
        for reading, found in family.readings().items():
            rows += [(family.family, reading, found.predictions, *cells) for cells in _cells(found)]
    return Table(columns, rows)


def _cells(found: Convergence) -> Iterator[tuple[Cell, ...]]:
    for layers, (lower, mean, upper) in enumerate(found.kl_nats.tolist()):
        yield layers, float(found.agreement[layers]), mean, lower, upper, float(found.stable[layers])


def _stable(families: Sequence[FamilyConvergence]) -> Table:
    columns = ("family", "reading", "predictions", "median_stable_layers_run", "stable_layers_run_95_percent")
    rows = [
        (family.family, reading, found.predictions, found.stable_for(0.5), found.stable_for(_MOST))
        for family in families
        for reading, found in family.readings().items()
    ]
    return Table(columns, rows)


def _findings(families: Sequence[FamilyConvergence], tokens: int) -> Iterator[str]:
    lens, blind = families[0].lens, families[0].blind
    layers, enough = len(lens.agreement) - 1, blind.stable_for(_MOST)
    of_each = "the first token" if tokens == 1 else f"up to {tokens} tokens"
    yield f"{counted(lens.predictions, 'prediction')}, {of_each} of each answer; {counted(layers, 'layer')}"
    for name, found in (("logit lens", lens), ("blind (no visual token from there on)", blind)):
        half, most = found.stable_for(0.5), found.stable_for(_MOST)
        yield f"{name}: stable after {counted(half, 'layer')} for half of them, after {most} for {percent(_MOST)}"
    yield f"with no visual token at all {percent(float(blind.agreement[0]))} of them are the same"
    if enough < layers:
        yield (
            f"without visual tokens from layer {enough} on {_changed(blind, enough)}; "
            f"the lens after {counted(enough, 'layer')} is {_off(lens, enough)}"
        )
    if len(families) > 1:
        yield from (_by_family(families[1:], reading) for reading in ("lens", "blind"))


def _changed(found: Convergence, layers: int) -> str:
    return f"{percent(1 - float(found.agreement[layers]))} of them change (KL {found.kl_nats[layers, 1]:.2g} nats)"


def _off(found: Convergence, layers: int) -> str:
    return f"another for {percent(1 - float(found.agreement[layers]))} (KL {found.kl_nats[layers, 1]:.2g})"


def _by_family(families: Sequence[FamilyConvergence], reading: str) -> str:
    layers = {family.family: family.readings()[reading].stable_for(0.5) for family in families}
    low, high = min(layers.values()), max(layers.values())

    def named(median: int) -> str:
        return ", ".join(family for family, layer in layers.items() if layer == median)

    if low == high:
        return f"{reading}, median by family: {counted(low, 'layer')} for all"
    return f"{reading}, median by family: from {counted(low, 'layer')} ({named(low)}) to {high} ({named(high)})"
