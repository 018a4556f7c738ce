"""Stage 2 of VScan (arXiv 2505.22654, section 3.2): visual tokens that the question does not need leave in the middle layers.

Planning decides budgets when a request comes; ranking decides, before a pruning layer, which tokens survive. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from decoder_service.request import LayerPruning, Pruning
from vscan.errors import InvalidArgument
from vscan.specs import (
    KeepRatio,
    KeepTokens,
    PositionPolicy,
    PruneSpec,
    Rater,
    ReductionSpec,
    TargetAverage,
    floor_tokens,
)

# The paper's share at its one pruning layer.
DEFAULT_KEEP = KeepRatio(1 / 3)
_BISECTIONS = 60
# An odd 64-bit constant, so that neighbouring seeds and layers draw unlike numbers.
_LAYER_STRIDE = 0x9E3779B97F4A7C15
# Rows that ask at a time when a prompt is ranked, and what their logits may take; the weights take as much again.
_MOST_ASKING = 64
_MOST_LOGIT_BYTES = 64 * 2**20


def default_prune(positions: PositionPolicy) -> PruneSpec:
    """What unset fields of a request mean, for a family with this position policy."""
    return PruneSpec(rater=Rater.LAST_TOKEN, seed=0, positions=positions)


def plan_pruning(
    spec: PruneSpec,
    *,
    reduction: ReductionSpec,
    prune_layers: Sequence[int],
    layers: int,
    visual_tokens: int,
    visual_unreduced: int,
    images: int,
    default_keep: KeepRatio = DEFAULT_KEEP,
    field: str = "prune",
) -> Pruning:
    """Decides stage 2 of one request.

    Without budgets in `spec`: what `reduction`'s target average asks for (`budgets_for_average`), else `default_keep`.

    Args:
        spec: filled (`PruneSpec.filled_from`).
        reduction: what stage 1 was asked for, filled.
        prune_layers: of the deployment, ascending.
        layers: of the language model.
        visual_tokens: in the prompt, after stage 1.
        visual_unreduced: the same images before stage 1.
        images: in the prompt.
        default_keep: of the deployment.
        field: path of `spec` in the request, for errors.

    Raises:
        InvalidArgument: another number of budgets than of pruning layers.
    """
    if spec.rater is None or spec.seed is None or spec.positions is None:
        raise ValueError("only a filled PruneSpec can be planned")
    if spec.rater is Rater.NONE or not visual_tokens or not prune_layers:
        _check_count(spec, prune_layers, field)
        return Pruning(positions=spec.positions)
    if spec.rater is Rater.DROP_ALL:
        return Pruning(layers=tuple(prune_layers[:1]), rater=Rater.DROP_ALL, seed=spec.seed, positions=spec.positions)
    _check_count(spec, prune_layers, field)
    budgets = spec.budgets
    if not budgets and isinstance(reduction.budget, TargetAverage):
        target = reduction.budget.fraction * visual_unreduced
        budgets = budgets_for_average(
            target, prune_layers=prune_layers, layers=layers, visual_tokens=visual_tokens, images=images
        )
    budgets = budgets or (default_keep,) * len(prune_layers)
    return Pruning(layers=tuple(prune_layers), budgets=budgets, rater=spec.rater, seed=spec.seed, positions=spec.positions)


def _check_count(spec: PruneSpec, prune_layers: Sequence[int], field: str) -> None:
    ignored = spec.rater in (Rater.NONE, Rater.DROP_ALL)
    if spec.budgets and not ignored and len(spec.budgets) != len(prune_layers):
        layers = ", ".join(map(str, prune_layers)) or "none"
        raise InvalidArgument(f"{field}.budgets", f"{len(spec.budgets)}", limit=f"one for each pruning layer here ({layers})")


def budgets_for_average(
    target: float, *, prune_layers: Sequence[int], layers: int, visual_tokens: int, images: int = 1
) -> tuple[KeepTokens, ...]:
    """Budgets with which `target` visual tokens are held on average over the layers.

    With one pruning layer k of L and T tokens reaching it, keep = (target x L - T x k) / (L - k): T = 1.5 x target at half
    the layers gives T / 3. With several, the same fraction survives each of them; that fraction is found by bisection. Counts
    are rounded down; where even dropping all would leave more than `target`, one token for each image is kept.
    """
    bounds = (0, *prune_layers, layers)
    spans = [high - low for low, high in pairwise(bounds)]

    def average(fraction: float) -> float:
        return visual_tokens * sum(span * fraction**stage for stage, span in enumerate(spans)) / layers

    fraction = _largest_fraction(average, target)
    counts = (floor_tokens(visual_tokens * fraction ** (stage + 1)) for stage in range(len(prune_layers)))
    return tuple(KeepTokens(max(images, count)) for count in counts)


def _largest_fraction(average: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    if average(high) <= target:
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if average(middle) <= target else (low, middle)
    return low


def visual_tokens_average(visual_tokens: int, pruning: Sequence[LayerPruning], *, layers: int) -> float:
    """Visual tokens on average over the layers, given what each pruning layer did, in order."""
    bounds = (0, *(done.layer for done in pruning), layers)
    counts = (visual_tokens, *(done.tokens_after for done in pruning))
    return sum(count * (high - low) for count, (low, high) in zip(counts, pairwise(bounds), strict=True)) / layers


def attention_scores(
    queries: torch.Tensor, keys: torch.Tensor, *, query_rows: torch.Tensor, visual_rows: torch.Tensor, scaling: float
) -> torch.Tensor:
    """How much attention each visual row gets from the asking rows.

    Softmax over the whole causal sequence in float32, mean over heads, mean over the asking rows. A few of these are taken at a
    time, so that the weights of all of them are never there at once.

    Args:
        queries: of the asking rows, [heads, m, head_dim].
        keys: of all rows, [kv heads, rows, head_dim].
        query_rows: which rows ask, [m], int64.
        visual_rows: which rows are visual, [v], int64.

    Returns:
        [v], float32; float64 for float64 keys.
    """
    exact = torch.promote_types(keys.dtype, torch.float32)
    (heads, asking, width), (kv_heads, rows, _) = queries.shape, keys.shape
    grouped = queries.view(kv_heads, heads // kv_heads, asking, width)  # those that share a head of keys together
    places = torch.arange(rows, device=keys.device)
    total = torch.zeros(rows, dtype=exact, device=keys.device)
    size = min(_MOST_ASKING, max(1, _MOST_LOGIT_BYTES // (heads * rows * exact.itemsize)))
    for some in (slice(start, start + size) for start in range(0, asking, size)):
        logits = (grouped[:, :, some].flatten(1, 2) @ keys.transpose(1, 2)).to(exact).view(heads, -1, rows)
        later = places > query_rows[some, None]
        total += logits.mul_(scaling).masked_fill_(later, float("-inf")).softmax(dim=-1).sum(dim=(0, 1))
    return total[visual_rows] / (heads * asking)


def random_scores(count: int, *, seed: int, layer: int) -> torch.Tensor:
    """The control: scores drawn from `seed`, other ones for each layer, [count], on the CPU."""
    generator = torch.Generator().manual_seed((seed + layer * _LAYER_STRIDE) % 2**64)
    return torch.rand(count, generator=generator)


def choose_survivors(scores: torch.Tensor, image_of: torch.Tensor, keep: int) -> torch.Tensor:
    """The `keep` best visual tokens of the prompt, in their original order; no image loses its last token.

        scores     .1 .5 .4 .3 .2     image_of  0 0 0 0 1     keep 2
        best of all would be 1 2; image 1 would be empty, so its best takes the place of the last: 1 4

    Ties go to the lower index.

    Args:
        scores: [v].
        image_of: the image of each token, [v], int64.
        keep: at least the number of images, at most v.

    Returns:
        [keep], int64, ascending.
    """
    order = scores.sort(descending=True, stable=True).indices  # best first
    grouped = image_of[order].sort(stable=True)
    leads = torch.ones_like(grouped.values, dtype=torch.bool)
    leads[1:] = grouped.values[1:] != grouped.values[:-1]
    best = torch.zeros_like(leads)
    best[grouped.indices[leads]] = True  # in `order`: the best token of an image
    return torch.cat((order[best], order[~best]))[:keep].sort().values
