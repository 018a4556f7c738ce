"""A real decoder in front of a real encoder: what comes back for questions that are well formed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.asking import OTHER_PICTURE, PICTURE, ask, chat, decoder_stub, raw, refusal
from tests.support.stack import in_process_stack
from vscan.errors import MissingImages
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc, visual_tokens_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")
LAYERS = 6
Stub = decoder_pb2_grpc.DecoderStub


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stub() -> AsyncIterator[Stub]:
    async with in_process_stack(decoder={"prune_layers": (2, 4)}) as stack, decoder_stub(stack.decoder_address) as stub:
        yield stub


def with_budgets(request: pb.GenerateRequest, tokens: int, *kept: int) -> pb.GenerateRequest:
    request.reduction.budget.tokens_per_tile = tokens
    request.prune.budgets.extend(pb.PruneBudget(tokens=count) for count in kept)
    return request


async def test_an_answer_streams_and_counts(stub: Stub) -> None:
    reply = await ask(stub, with_budgets(chat(PICTURE, "w1 w2"), 48, 24, 12))
    assert len(reply.started.request_id) == 32
    assert len(reply.ids) == 6
    assert len(reply.deltas) == 6
    image = reply.started.images[0]
    assert image.sha256 == hashlib.sha256(PICTURE).digest()
    assert (image.tokens_before, image.tokens_after) == (576, 48)
    assert not image.HasField("kept")
    # <s> USER: 48 x <image> w1 w2 ASSISTANT:
    assert reply.started.prompt_tokens == 53
    assert [(p.layer, p.tokens_before, p.tokens_after, len(p.survivors)) for p in reply.finished.pruning] == [
        (2, 48, 24, 0),
        (4, 24, 12, 0),
    ]
    usage = reply.finished.usage
    assert (usage.prompt_tokens, usage.visual_tokens, usage.visual_tokens_unreduced) == (53, 48, 576)
    assert usage.visual_tokens_average == (2 * 48 + 2 * 24 + 2 * 12) / LAYERS
    assert usage.completion_tokens == 6
    assert reply.finished.reason == pb.FINISH_REASON_LENGTH
    timings = reply.finished.timings
    assert 0 < timings.prune_ms < timings.prefill_ms < timings.time_to_first_token_ms < timings.total_ms
    assert timings.resolve_images_ms < timings.time_to_first_token_ms


async def test_kept_places_are_reported_where_asked_for(stub: Stub) -> None:
    request = with_budgets(chat(PICTURE, OTHER_PICTURE, "w1"), 32, 24, 8)
    request.report_kept = True
    reply = await ask(stub, request)
    for image in reply.started.images:
        assert len(image.kept.kept_indices) == len(image.kept.picked_by) == 32
        assert sorted(image.kept.kept_indices) == list(image.kept.kept_indices)
        assert not image.kept.HasField("tokens")
        assert visual_tokens_pb2.PICKED_BY_LOCAL in image.kept.picked_by
    first, second = reply.finished.pruning
    assert [sum(len(s.rows) for s in report.survivors) for report in (first, second)] == [24, 8]
    for before, after in zip(first.survivors, second.survivors, strict=True):
        assert set(after.rows) <= set(before.rows) <= set(range(32))
        assert after.rows


async def test_the_default_budgets_keep_a_ninth_on_average(stub: Stub) -> None:
    reply = await ask(stub, chat(PICTURE, "w1"))
    assert reply.finished.usage.visual_tokens == 96
    assert 62 <= reply.finished.usage.visual_tokens_average <= 64


async def test_nothing_is_pruned_where_nothing_is_asked(stub: Stub) -> None:
    request = chat(PICTURE, "w1")
    request.reduction.method = visual_tokens_pb2.REDUCTION_METHOD_NONE
    request.prune.rater = pb.RATER_NONE
    reply = await ask(stub, request)
    assert not reply.finished.pruning
    assert reply.finished.usage.visual_tokens == reply.finished.usage.visual_tokens_average == 576


async def test_a_chat_without_images_is_answered(stub: Stub) -> None:
    reply = await ask(stub, chat("w1 w2 w3"))
    assert not reply.started.images
    assert reply.finished.usage.visual_tokens == 0


async def test_the_same_picture_twice_is_one_encoding(stub: Stub) -> None:
    request = chat(PICTURE, "w1", PICTURE, "w2")
    request.reduction.budget.tokens_per_tile = 24
    reply = await ask(stub, request)
    assert reply.places == ["ENCODED", "SHARED"]
    assert (await ask(stub, request)).places == ["MEMORY", "MEMORY"]


async def test_a_digest_is_enough_once_the_bytes_were_seen(stub: Stub) -> None:
    """Nothing is known under an unseen digest: both are named, and with one sent the other still is."""
    request = chat(hashlib.sha256(PICTURE).digest(), hashlib.sha256(OTHER_PICTURE).digest(), "w1")
    request.reduction.budget.tokens_per_tile = 16
    missing = await refusal(stub, request)
    assert isinstance(missing, MissingImages)
    assert set(missing.sha256) == {hashlib.sha256(PICTURE).digest(), hashlib.sha256(OTHER_PICTURE).digest()}
    assert missing.field == "messages[0].parts[0].image"

    with_bytes = pb.GenerateRequest.FromString(request.SerializeToString())
    with_bytes.chat.messages[0].parts[0].image.data = PICTURE
    missing = await refusal(stub, with_bytes)
    assert isinstance(missing, MissingImages)
    assert missing.sha256 == (hashlib.sha256(OTHER_PICTURE).digest(),)

    with_bytes.chat.messages[0].parts[1].image.data = OTHER_PICTURE
    sent = await ask(stub, with_bytes)
    named = await ask(stub, request)
    assert named.places == ["MEMORY", "MEMORY"]
    assert (named.ids, named.text) == (sent.ids, sent.text)


async def test_raw_and_chat_prompts_are_the_same_to_the_model(stub: Stub) -> None:
    from_chat = await ask(stub, chat(PICTURE, "w1 w2", logprobs=3))
    from_raw = await ask(stub, raw("USER: <image> w1 w2 ASSISTANT:", PICTURE, logprobs=3))
    assert from_chat.tokens == from_raw.tokens
    assert [len(token.top) for token in from_raw.tokens] == [3] * 6
    assert all(token.top[0].logprob >= token.top[1].logprob for token in from_raw.tokens)


async def test_text_that_says_image_is_text(stub: Stub) -> None:
    reply = await ask(stub, chat("<image>", PICTURE, "w1 <image> </s>"))
    assert len(reply.started.images) == 1
    assert reply.finished.usage.visual_tokens == 96


async def test_a_seed_makes_an_answer_repeatable(stub: Stub) -> None:
    drawn = await ask(stub, chat("w1", temperature=1.5, max_new_tokens=12))
    again = await ask(stub, chat("w1", temperature=1.5, max_new_tokens=12, seed=drawn.finished.seed))
    other = await ask(stub, chat("w1", temperature=1.5, max_new_tokens=12, seed=drawn.finished.seed + 1))
    assert again.ids == drawn.ids
    assert other.ids != drawn.ids


async def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(stub: Stub) -> None:
    whole = await ask(stub, chat(PICTURE, "w5"))
    words = whole.text.split()
    stopped = await ask(stub, chat(PICTURE, "w5", stop=[words[2]]))
    assert stopped.finished.reason == pb.FINISH_REASON_STOP_STRING
    assert stopped.text.split() == words[:2]


async def test_the_answer_ends_where_the_context_does(stub: Stub) -> None:
    """Without a length of its own a question gets what room there is."""
    request = chat("w1 " * 4080)
    request.sampling.ClearField("max_new_tokens")
    reply = await ask(stub, request)
    assert reply.started.prompt_tokens + len(reply.ids) == 4096


async def test_describe_says_what_is_served(stub: Stub) -> None:
    described = await stub.Describe(pb.DescribeDecoderRequest())
    assert (described.model, described.family, described.layers) == ("llava15", "llava", LAYERS)
    assert list(described.defaults.prune_layers) == [2, 4]
    assert described.raw_prompts
    assert len(described.encoder_fingerprint) == len(described.pair_fingerprint) == 32
    assert described.limits.max_images == 16
    assert described.limits.max_context_tokens == 4096
    assert described.defaults.reduction.budget.target_average == pytest.approx(1 / 9)
    assert described.defaults.prune.rater == pb.RATER_LAST_TOKEN
