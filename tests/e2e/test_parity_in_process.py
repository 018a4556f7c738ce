"""The authors' cases through raw prompts over gRPC: kept places as reported, ids, log-probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.parity.case import Case
from tests.support.asking import Reply, ask, decoder_stub, raw
from tests.support.stack import in_process_stack
from vscan.specs import PruneSpec, Rater, ReductionMethod, ReductionSpec
from vscan.v1 import decoder_pb2 as pb
from vscan.wire import prune_to_proto, reduction_to_proto

DATA = Path(__file__).parents[1] / "data" / "parity"
TOLERANCE = 1e-3


def request_of(case: Case) -> pb.GenerateRequest:
    request = raw(case.prompt, case.picture.read_bytes(), max_new_tokens=case.max_new_tokens, logprobs=5)
    request.reduction.CopyFrom(reduction_to_proto(ReductionSpec(method=ReductionMethod.VSCAN, budget=case.budget)))
    rater = Rater.LAST_TOKEN if case.prune_budgets else Rater.NONE
    request.prune.CopyFrom(prune_to_proto(PruneSpec(rater=rater, budgets=case.prune_budgets)))
    request.report_kept = True
    return request


@pytest.mark.parametrize("name", ["llava15_96_32", "llava15_192_64", "llava15_full", "next_2x2_96"])
async def test_a_case_is_answered_as_the_released_code_does(name: str) -> None:
    case = Case.load(DATA / "expected" / f"{name}.json", DATA)
    fixed = case.deployment
    async with (
        in_process_stack(
            checkpoint=fixed.checkpoint,
            encoder={"shallow_layer": fixed.shallow_layer, "window": fixed.window, "skip_padding": False},
            decoder={"prune_layers": fixed.prune_layers},
        ) as stack,
        decoder_stub(stack.decoder_address) as stub,
    ):
        reply = await ask(stub, request_of(case))
    assert reply.ids == list(case.output_token_ids)
    assert kept_places(reply) == expected_places(case)
    assert_logprobs(reply, case.expected["logits"])
    pruned = [report.tokens_after for report in reply.finished.pruning]
    assert pruned == [getattr(budget, "count", None) for budget in case.prune_budgets]


def kept_places(reply: Reply) -> list[int]:
    return list(reply.started.images[0].kept.kept_indices)


def expected_places(case: Case) -> list[int]:
    """Places in the value's own order: with stitched tiles the base tile's, then those of the grid, its newlines included."""
    mask = case.expected["kept_mask"].flatten().bool()
    if case.places is not None:
        newlines = torch.ones(len(case.places), 1, dtype=torch.bool)
        mask = torch.cat([mask[:576], torch.cat([mask[case.places], newlines], dim=1).flatten()])
    return mask.nonzero().flatten().tolist()


def assert_logprobs(reply: Reply, logits: torch.Tensor) -> None:
    for token, expected in zip(reply.tokens, logits.float().log_softmax(-1), strict=True):
        served = torch.tensor([entry.logprob for entry in token.top])
        assert (served - expected[[entry.token_id for entry in token.top]]).abs().max() <= TOLERANCE
        assert (served - expected.topk(5).values).abs().max() <= TOLERANCE
        assert token.logprob == pytest.approx(float(expected[token.token_id]), abs=TOLERANCE)
