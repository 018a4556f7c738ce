"""What a request may ask of stage 2, over real gRPC: raters, seeds, budgets and positions, by what the reply reports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from tests.support.asking import OTHER_PICTURE, PICTURE, Reply, ask, chat, decoder_stub
from tests.support.stack import in_process_stack
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")
LAYERS = 6
KEPT = 40  # of each picture by stage 1
Stub = decoder_pb2_grpc.DecoderStub
RANKING = [pb.RATER_LAST_TOKEN, pb.RATER_TEXT_MEAN, pb.RATER_RANDOM]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    async with in_process_stack(decoder={"prune_layers": (2, 4)}) as stack, decoder_stub(stack.decoder_address) as stub:
        yield stub


def pruned(
    rater: pb.Rater, *budgets: int | float, seed: int = 0, positions: pb.PositionPolicy = pb.POSITION_POLICY_UNSPECIFIED
) -> pb.GenerateRequest:
    """Two pictures, `KEPT` tokens each; a budget that is an int is tokens, a float a ratio."""
    request = chat(PICTURE, "w1", OTHER_PICTURE, "w2 w3", logprobs=1)
    request.reduction.budget.tokens_per_tile = KEPT
    request.report_kept = True
    request.prune.CopyFrom(pb.PruneSpec(rater=rater, seed=seed, positions=positions))
    request.prune.budgets.extend(
        pb.PruneBudget(tokens=amount) if isinstance(amount, int) else pb.PruneBudget(ratio=amount) for amount in budgets
    )
    return request


def counts(reply: Reply) -> list[tuple[int, int, int]]:
    """Layer, tokens before and after, of each pruning."""
    return [(report.layer, report.tokens_before, report.tokens_after) for report in reply.finished.pruning]


def survivors(reply: Reply) -> list[list[list[int]]]:
    """Rows of each image that survived, by pruning layer."""
    return [[list(image.rows) for image in report.survivors] for report in reply.finished.pruning]


def logprobs(reply: Reply) -> list[float]:
    return [token.logprob for token in reply.tokens]


def average(*held: int) -> float:
    """Visual tokens over the layers: two before, between and after the pruning layers each."""
    return sum(2 * tokens for tokens in held) / LAYERS


def check_survivors(reply: Reply) -> None:
    """They are as many as is said, in order, in both images, and each layer's are among those of the one before."""
    whole = [list(range(KEPT))] * 2
    for report, before, after in zip(reply.finished.pruning, [whole, *survivors(reply)], survivors(reply), strict=False):
        assert sum(map(len, after)) == report.tokens_after
        for earlier, later in zip(before, after, strict=True):
            assert later == sorted(set(later))
            assert later
            assert set(later) <= set(earlier)


@pytest.mark.parametrize("rater", RANKING, ids=pb.Rater.Name)
async def test_every_ranking_keeps_what_the_budgets_say(stub: Stub, rater: pb.Rater) -> None:
    reply = await ask(stub, pruned(rater, 30, 12))
    assert counts(reply) == [(2, 80, 30), (4, 30, 12)]
    assert reply.finished.usage.visual_tokens == 80
    assert reply.finished.usage.visual_tokens_average == pytest.approx(average(80, 30, 12))
    check_survivors(reply)
    assert survivors(await ask(stub, pruned(rater, 30, 12))) == survivors(reply)


async def test_rankings_and_seeds_choose_unlike_tokens(stub: Stub) -> None:
    asked = [pruned(rater, 30, 12) for rater in RANKING] + [pruned(pb.RATER_RANDOM, 30, 12, seed=1)]
    chosen = [survivors(await ask(stub, request)) for request in asked]
    for index, mine in enumerate(chosen):
        assert all(mine[0] != other[0] for other in chosen[index + 1 :])


async def test_only_the_random_ranking_reads_the_seed(stub: Stub) -> None:
    for rater in (pb.RATER_LAST_TOKEN, pb.RATER_TEXT_MEAN):
        first, second = [await ask(stub, pruned(rater, 30, 12, seed=seed)) for seed in (0, 1)]
        assert survivors(first) == survivors(second)
        assert logprobs(first) == logprobs(second)


async def test_the_default_ranking_is_by_the_last_token(stub: Stub) -> None:
    unset, last = [await ask(stub, pruned(rater, 30, 12)) for rater in (pb.RATER_UNSPECIFIED, pb.RATER_LAST_TOKEN)]
    assert survivors(unset) == survivors(last)


@pytest.mark.parametrize("budgets", [(), (30, 12), (30,)], ids=str)
async def test_drop_all_leaves_no_visual_token_whatever_the_budgets(stub: Stub, budgets: Sequence[int]) -> None:
    reply = await ask(stub, pruned(pb.RATER_DROP_ALL, *budgets))
    assert counts(reply) == [(2, 80, 0)]
    assert survivors(reply) == [[[], []]]
    assert reply.finished.usage.visual_tokens_average == pytest.approx(average(80, 0, 0))


async def test_no_ranking_prunes_nothing(stub: Stub) -> None:
    reply = await ask(stub, pruned(pb.RATER_NONE))
    assert counts(reply) == []
    assert reply.finished.usage.visual_tokens_average == 80
    everything = await ask(stub, pruned(pb.RATER_LAST_TOKEN, 80, 80))
    assert counts(everything) == [(2, 80, 80), (4, 80, 80)]
    assert everything.ids == reply.ids
    assert logprobs(everything) == pytest.approx(logprobs(reply), abs=1e-4)


@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ((0.5, 0.25), [(2, 80, 40), (4, 40, 10)]),  # a ratio is of what reaches its layer
        ((0.33, 1.0), [(2, 80, 26), (4, 26, 26)]),  # rounded down
        ((50, 0.58), [(2, 80, 50), (4, 50, 29)]),  # 29, though 0.58 x 50 is 28.999... in binary fractions
        ((0.75, 7), [(2, 80, 60), (4, 60, 7)]),
        ((1000, 500), [(2, 80, 80), (4, 80, 80)]),  # more than there are means all
        ((1, 1), [(2, 80, 2), (4, 2, 2)]),  # but one for each image
        ((0.001, 1.0), [(2, 80, 2), (4, 2, 2)]),
    ],
    ids=str,
)
async def test_budgets_are_tokens_or_ratios(
    stub: Stub, budgets: Sequence[int | float], expected: list[tuple[int, int, int]]
) -> None:
    reply = await ask(stub, pruned(pb.RATER_LAST_TOKEN, *budgets))
    assert counts(reply) == expected
    check_survivors(reply)


async def test_positions_kept_or_renumbered_are_other_answers_of_the_same_ranking(stub: Stub) -> None:
    policies = (pb.POSITION_POLICY_UNSPECIFIED, pb.POSITION_POLICY_RENUMBER, pb.POSITION_POLICY_KEEP)
    unset, renumbered, kept = [await ask(stub, pruned(pb.RATER_LAST_TOKEN, 30, 12, positions=p)) for p in policies]
    assert logprobs(unset) == logprobs(renumbered), "the family's own"
    assert survivors(renumbered)[0] == survivors(kept)[0], "nothing was pruned before the first pruning layer"
    assert counts(renumbered) == counts(kept)
    assert logprobs(renumbered)[0] != pytest.approx(logprobs(kept)[0], abs=1e-4)


async def test_positions_are_all_the_same_where_nothing_is_pruned(stub: Stub) -> None:
    policies = (pb.POSITION_POLICY_RENUMBER, pb.POSITION_POLICY_KEEP)
    renumbered, kept = [await ask(stub, pruned(pb.RATER_NONE, positions=policy)) for policy in policies]
    assert logprobs(renumbered) == logprobs(kept)


async def test_survivors_are_reported_only_where_asked_for(stub: Stub) -> None:
    request = pruned(pb.RATER_LAST_TOKEN, 30, 12)
    request.report_kept = False
    reply = await ask(stub, request)
    assert counts(reply) == [(2, 80, 30), (4, 30, 12)]
    assert survivors(reply) == [[], []]
