"""What came over gRPC against what is expected, and the dump of it in the layout of the expectation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

from tests.parity.case import Case
from vscan.visual_tokens import VisualTokens

VISUAL_TOKENS_TOLERANCE = 1e-3
LOGPROB_TOLERANCE = 1e-3
TOP = 5
# Cosines so close are one number in float32: which of two kept tokens takes a dropped one is then up to the order of a sum.
TIE = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What the services answered for one case."""

    tokens: VisualTokens
    unreduced: torch.Tensor  # [N, hidden]: the image's tokens before any was dropped
    output_token_ids: tuple[int, ...]
    top_ids: torch.Tensor  # [steps, 5], int64
    top_logprobs: torch.Tensor  # [steps, 5], float32


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one case compares."""

    case: str
    kept: bool
    visual_tokens_max_abs: float | None  # None: the case does not state them
    worst_row: int | None  # of the visual tokens; None: the case does not state them, or as many
    tie: bool  # only rows are off of which a dropped token may as well be in the one as in the other
    ids: bool
    top5_logprobs: float
    ok: bool

    def to_json(self) -> dict[str, object]:
        """The row of `--json`."""
        return asdict(self)


def compare(case: Case, served: Served) -> Verdict:
    """Kept sets and ids exactly; visual tokens and top-5 log-probabilities to 1e-3 (largest absolute difference).

    A tie is told, but does not agree: what is computed from such rows differs too. A case without reduction may leave out
    visual tokens and kept set: then every token must be there.
    """
    kept = _kept_agrees(case, served.tokens)
    stated = case.expected.get("visual_tokens")
    tokens = None if stated is None else _max_abs(stated, served.tokens.tokens)
    off = _rows_off(stated, served.tokens.tokens)
    wrong = {row for row, gap in enumerate(off) if gap > VISUAL_TOKENS_TOLERANCE}
    tie = kept and bool(wrong) and case.places is None and wrong <= _tied_rows(served)
    worst = off.index(max(off)) if off else None
    ids = served.output_token_ids == case.output_token_ids
    logprobs = _logprob_gap(case.expected["logits"], served)
    ok = kept and ids and (tokens or 0.0) <= VISUAL_TOKENS_TOLERANCE and logprobs <= LOGPROB_TOLERANCE
    return Verdict(case.name, kept, tokens, worst, tie, ids, logprobs, ok)


def kept_mask(tokens: VisualTokens, shape: torch.Size, places: torch.Tensor | None) -> torch.Tensor:
    """Which patches were kept, [tiles, patches of a tile], bool; none in padding. Tiles of one size only.

    Args:
        places: see `stitched_places`; None if the value's tiles are the transformer's.
    """
    mask = torch.zeros(tokens.unreduced_count, dtype=torch.bool)
    mask[tokens.kept_indices] = True
    if places is None:
        return mask.view(len(tokens.tiles), -1)
    base = shape[1]
    tiles = torch.zeros(shape.numel(), dtype=torch.bool)
    tiles[:base] = mask[:base]
    tiles[places] = mask[base:].view(places.shape[0], places.shape[1] + 1)[:, :-1]  # without the newlines
    return tiles.view(shape)


def dump(case: Case, served: Served, folder: Path) -> None:
    """Writes `CASE.json` and `CASE.safetensors` as the expectation has them, with the served values."""
    if "kept_mask" in case.expected:
        kept = {"kept_mask": kept_mask(served.tokens, case.expected["kept_mask"].shape, case.places)}
    else:
        kept = {"kept_index": served.tokens.kept_indices}
    tensors = {"visual_tokens": served.tokens.tokens, "top5_ids": served.top_ids, "top5_logprobs": served.top_logprobs}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in (kept | tensors).items()}, folder / f"{case.name}.safetensors")
    (folder / f"{case.name}.json").write_text(json.dumps({"output_token_ids": list(served.output_token_ids)}))


def _kept_agrees(case: Case, tokens: VisualTokens) -> bool:
    if "kept_index" in case.expected:
        return torch.equal(case.expected["kept_index"].long().flatten(), tokens.kept_indices)
    if "kept_mask" not in case.expected:
        return tokens.kept_count == tokens.unreduced_count
    expected = case.expected["kept_mask"].bool()
    try:
        mask = kept_mask(tokens, expected.shape, case.places)
    except (RuntimeError, IndexError):  # other tiles than expected
        return False
    return mask.shape == expected.shape and torch.equal(mask, expected & _seen(expected.shape, case.places))


def _seen(shape: torch.Size, places: torch.Tensor | None) -> torch.Tensor:
    """Patches that the language model may see: of what the released code keeps in padding, it sees nothing."""
    seen = torch.full((shape.numel(),), places is None)
    seen[: shape[1]] = True
    if places is not None:
        seen[places] = True
    return seen.view(shape)


def _rows_off(expected: torch.Tensor | None, served: torch.Tensor) -> list[float]:
    """How far each row is off; empty where there are others than expected."""
    if expected is None or expected.shape != served.shape:
        return []
    gaps: list[float] = (expected.float() - served.float()).abs().amax(dim=1).tolist()
    return gaps


def _tied_rows(served: Served) -> set[int]:
    """The rows that a dropped token is equally similar to; of a value of one tile."""
    kept = served.tokens.kept_indices
    if len(kept) < 2:
        return set()
    unit = functional.normalize(served.unreduced.float(), dim=-1)
    best = (unit @ unit[kept].T).topk(2)
    tied = best.values[:, 0] - best.values[:, 1] < TIE
    tied[kept] = False
    return set(best.indices[tied].flatten().tolist())


def _max_abs(expected: torch.Tensor, served: torch.Tensor) -> float:
    if expected.shape != served.shape:
        return float("inf")
    return float((expected.float() - served.float()).abs().max())


def _logprob_gap(logits: torch.Tensor, served: Served) -> float:
    """Largest difference, over the served top five of each step, from the expected log-probability of the same token, and
    from the expected value of the same rank: a token that should not be among the five shows in the second."""
    expected = logits.float().log_softmax(-1)
    if served.top_ids.shape != (expected.shape[0], TOP):
        return float("inf")
    same_token = expected.gather(1, served.top_ids)
    same_rank = expected.topk(TOP, dim=-1).values
    return max(_max_abs(same_token, served.top_logprobs), _max_abs(same_rank, served.top_logprobs))
