"""What came over gRPC against what is expected, and the dump of it in the layout of the expectation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.parity.case import Case
from vscan.visual_tokens import VisualTokens

VISUAL_TOKENS_TOLERANCE = 1e-3
LOGPROB_TOLERANCE = 1e-3
TOP = 5


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What the services answered for one case."""

    tokens: VisualTokens
    output_token_ids: tuple[int, ...]
    top_ids: torch.Tensor  # [steps, 5], int64
    top_logprobs: torch.Tensor  # [steps, 5], float32


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one case compares."""

    case: str
    kept: bool
    visual_tokens_max_abs: float | None  # None: the case does not state them
    ids: bool
    top5_logprobs: float
    ok: bool

    def to_json(self) -> dict[str, object]:
        """The row of `--json`."""
        return asdict(self)


def compare(case: Case, served: Served) -> Verdict:
    """Kept sets and ids exactly; visual tokens and top-5 log-probabilities to 1e-3 (largest absolute difference).

    A case without reduction may leave out visual tokens and kept set: then every token must be there.
    """
    kept = _kept_agrees(case.expected, served.tokens)
    stated = case.expected.get("visual_tokens")
    tokens = None if stated is None else _max_abs(stated, served.tokens.tokens)
    ids = served.output_token_ids == case.output_token_ids
    logprobs = _logprob_gap(case.expected["logits"], served)
    ok = kept and ids and (tokens or 0.0) <= VISUAL_TOKENS_TOLERANCE and logprobs <= LOGPROB_TOLERANCE
    return Verdict(case.name, kept, tokens, ids, logprobs, ok)


def kept_mask(tokens: VisualTokens) -> torch.Tensor:
    """[tiles, patches of a tile], bool: which patches were kept. Tiles of one size only."""
    mask = torch.zeros(tokens.unreduced_count, dtype=torch.bool)
    mask[tokens.kept_indices] = True
    return mask.view(len(tokens.tiles), -1)


def dump(case: Case, served: Served, folder: Path) -> None:
    """Writes `CASE.json` and `CASE.safetensors` as the expectation has them, with the served values."""
    kept = (
        {"kept_index": served.tokens.kept_indices} if "kept_index" in case.expected else {"kept_mask": kept_mask(served.tokens)}
    )
    tensors = {"visual_tokens": served.tokens.tokens, "top5_ids": served.top_ids, "top5_logprobs": served.top_logprobs}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in (kept | tensors).items()}, folder / f"{case.name}.safetensors")
    (folder / f"{case.name}.json").write_text(json.dumps({"output_token_ids": list(served.output_token_ids)}))


def _kept_agrees(expected: dict[str, torch.Tensor], tokens: VisualTokens) -> bool:
    if "kept_index" in expected:
        return torch.equal(expected["kept_index"].long().flatten(), tokens.kept_indices)
    if "kept_mask" not in expected:
        return tokens.kept_count == tokens.unreduced_count
    mask = kept_mask(tokens)
    return mask.shape == expected["kept_mask"].shape and torch.equal(mask, expected["kept_mask"].bool())


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
