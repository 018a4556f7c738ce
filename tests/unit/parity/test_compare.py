"""The parity tool must see every kind of difference; agreeing with itself is not enough."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from encoder_service.vision.registry import families
from tests.parity.case import Case, UnknownCase
from tests.parity.compare import TOP, Served, compare, dump
from vscan.visual_tokens import PickedBy, Tile, VisualTokens

DATA = Path(__file__).parents[2] / "data" / "parity"


@pytest.fixture
def case() -> Case:
    return Case.load(DATA / "expected" / "llava15_96_32.json", DATA)


@pytest.fixture
def served(case: Case) -> Served:
    """What a service that agrees exactly would answer."""
    kept = case.expected["kept_mask"].flatten().nonzero()[:, 0]
    top = case.expected["logits"].log_softmax(-1).topk(TOP, dim=-1)
    tokens = VisualTokens(
        tokens=case.expected["visual_tokens"],
        kept_indices=kept,
        picked_by=torch.full((len(kept),), int(PickedBy.GLOBAL), dtype=torch.uint8),
        merged_into=None,
        tiles=(Tile(24, 24, len(kept)),),
        unreduced_count=576,
    )
    unreduced = torch.randn(576, 64, generator=torch.Generator().manual_seed(0))
    return Served(tokens, unreduced, case.output_token_ids, top.indices, top.values)


def test_an_exact_answer_agrees(case: Case, served: Served) -> None:
    verdict = compare(case, served)
    assert verdict.ok
    assert verdict.visual_tokens_max_abs == 0
    assert verdict.top5_logprobs == 0


def test_one_other_kept_patch_is_seen(case: Case, served: Served) -> None:
    kept = served.tokens.kept_indices.clone()
    free = next(place for place in range(576) if place not in set(kept.tolist()))
    kept = torch.cat((kept[1:], torch.tensor([free]))).sort().values
    verdict = compare(case, replace(served, tokens=replace(served.tokens, kept_indices=kept)))
    assert not verdict.kept
    assert not verdict.ok


def test_a_case_without_reduction_wants_every_token(case: Case, served: Served) -> None:
    bare = replace(case, expected={"logits": case.expected["logits"]})
    verdict = compare(bare, served)
    assert verdict.visual_tokens_max_abs is None
    assert not verdict.kept
    assert not verdict.ok
    whole = replace(
        served.tokens,
        tokens=torch.zeros(576, 64),
        kept_indices=torch.arange(576),
        picked_by=torch.full((576,), int(PickedBy.ALL), dtype=torch.uint8),
        tiles=(Tile(24, 24, 576),),
    )
    assert compare(bare, replace(served, tokens=whole)).ok


def test_a_visual_token_that_is_off_is_seen(case: Case, served: Served) -> None:
    tokens = served.tokens.tokens.clone()
    tokens[95, 63] += 0.002
    verdict = compare(case, replace(served, tokens=replace(served.tokens, tokens=tokens)))
    assert verdict.visual_tokens_max_abs == pytest.approx(0.002, rel=0.01)
    assert verdict.worst_row == 95
    assert not verdict.ok
    assert not verdict.tie


def test_a_tie_is_told_and_excuses_no_other_row(case: Case, served: Served) -> None:
    unreduced, kept = served.unreduced.clone(), served.tokens.kept_indices
    dropped = next(place for place in range(576) if place not in set(kept.tolist()))
    unreduced[dropped] = functional.normalize(unreduced[kept[3]], dim=0) + functional.normalize(unreduced[kept[7]], dim=0)
    for row, tie in ((3, True), (7, True), (4, False)):
        tokens = served.tokens.tokens.clone()
        tokens[row] += 1
        verdict = compare(case, replace(served, tokens=replace(served.tokens, tokens=tokens), unreduced=unreduced))
        assert (verdict.worst_row, verdict.tie, verdict.ok) == (row, tie, False)


@pytest.mark.parametrize("family", sorted(families()))
def test_a_case_of_every_served_family_is_taken(tmp_path: Path, family: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "case.json").write_text(json.dumps({"checkpoint": "."}))
    with pytest.raises(UnknownCase, match=r"case\.safetensors is missing"):  # the next to be looked for
        Case.load(tmp_path / "case.json", tmp_path)


def test_one_other_id_is_seen(case: Case, served: Served) -> None:
    verdict = compare(case, replace(served, output_token_ids=(*served.output_token_ids[:-1], 0)))
    assert not verdict.ids
    assert not verdict.ok


def test_a_log_probability_that_is_off_is_seen(case: Case, served: Served) -> None:
    off = served.top_logprobs.clone()
    off[11, 4] -= 0.002
    assert not compare(case, replace(served, top_logprobs=off)).ok


def test_a_token_that_is_not_among_the_best_five_is_seen(case: Case, served: Served) -> None:
    ids, logprobs = served.top_ids.clone(), served.top_logprobs.clone()
    expected = case.expected["logits"].log_softmax(-1)
    ids[0, 4] = expected[0].argmin()
    logprobs[0, 4] = expected[0].min()
    assert not compare(case, replace(served, top_ids=ids, top_logprobs=logprobs)).ok


def test_a_dump_has_the_layout_of_the_expectation(case: Case, served: Served, tmp_path: Path) -> None:
    dump(case, served, tmp_path)
    written = load_file(tmp_path / "llava15_96_32.safetensors")
    assert set(written) == {"kept_mask", "visual_tokens", "top5_ids", "top5_logprobs"}
    assert torch.equal(written["kept_mask"], case.expected["kept_mask"])
    assert written["top5_ids"].shape == written["top5_logprobs"].shape == (12, 5)


def test_a_case_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"checkpoint": "llava15"}')
    with pytest.raises(UnknownCase, match=r"odd\.json|odd"):
        Case.load(tmp_path / "odd.json", DATA)
