"""With reduction and pruning off, LLaVA-NeXT's greedy answers are those of transformers' own `generate`, token for token."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.asking import ask, chat, decoder_stub, part, raw
from tests.support.llava_next import Reference, make_checkpoint, png
from tests.support.stack import in_process_stack
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc, visual_tokens_pb2

NEW_TOKENS = 12
SHAPES = {
    "wide": (150, 60),
    "tall": (50, 131),
    "square": (100, 100),
    "tile": (56, 56),
    "tiny": (9, 10),
    "larger than all": (500, 310),
    "nearly square": (113, 97),
    "strip": (160, 8),
    "column": (11, 190),
}


def unreduced(request: pb.GenerateRequest) -> pb.GenerateRequest:
    request.reduction.method = visual_tokens_pb2.REDUCTION_METHOD_NONE
    request.prune.rater = pb.RATER_NONE
    return request


def words(generator: random.Random) -> str:
    return " ".join(f"w{generator.randrange(7, 250)}" for _ in range(generator.randint(1, 8)))


class Pair:
    """The served path and transformers, on one checkpoint."""

    def __init__(self, stub: decoder_pb2_grpc.DecoderStub, reference: Reference) -> None:
        self.stub, self.reference = stub, reference

    async def assert_raw(self, prompt: str, *images: bytes) -> list[int]:
        served = await ask(self.stub, unreduced(raw(prompt, *images, max_new_tokens=NEW_TOKENS, ignore_eos=False)))
        assert served.ids == self.reference.generate(prompt, images, NEW_TOKENS), prompt
        return served.ids


@pytest.fixture(scope="module", params=[("llama", "old"), ("mistral", "new"), ("qwen2", "hub")], ids=lambda kind: kind[0])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text_model, style = request.param
    return make_checkpoint(tmp_path_factory.mktemp(text_model), text_model=text_model, style=style)


@pytest.fixture
async def pair(checkpoint: Path) -> AsyncIterator[Pair]:
    async with in_process_stack(checkpoint=checkpoint) as stack, decoder_stub(stack.decoder_address) as stub:
        yield Pair(stub, Reference(checkpoint))


async def test_images_of_every_shape(pair: Pair) -> None:
    generator = random.Random(1)
    answers = set()
    for seed, (width, height) in enumerate([*SHAPES.values()] * 2):
        prompt = f"USER: {words(generator)} <image> {words(generator)} ASSISTANT:"
        answers.add(tuple(await pair.assert_raw(prompt, png(width, height, seed))))
    assert len(answers) > 5, "the answers depend on what was asked"


async def test_two_images_in_one_prompt(pair: Pair) -> None:
    generator = random.Random(2)
    for first, second in (("wide", "tall"), ("tiny", "larger than all"), ("square", "square")):
        prompt = f"USER: <image> {words(generator)} <image> {words(generator)} ASSISTANT:"
        await pair.assert_raw(prompt, png(*SHAPES[first], 1), png(*SHAPES[second], 2))


async def test_a_second_turn(pair: Pair) -> None:
    picture = png(150, 60)
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "w10 w11"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "w12 w13"}]},
        {"role": "user", "content": [{"type": "text", "text": "w14 w15"}]},
    ]
    request = chat(picture, "w10 w11", max_new_tokens=NEW_TOKENS, ignore_eos=False)
    request.chat.messages.append(pb.Message(role=pb.ROLE_ASSISTANT, parts=[part("w12 w13")]))
    request.chat.messages.append(pb.Message(role=pb.ROLE_USER, parts=[part("w14 w15")]))
    served = await ask(pair.stub, unreduced(request))
    assert served.ids == pair.reference.generate(pair.reference.rendered(turns), [picture], NEW_TOKENS)


async def test_a_users_words_are_never_an_image_or_an_end(pair: Pair) -> None:
    """What looks like the template's own tokens is text, beside a real image."""
    served = await ask(pair.stub, unreduced(chat(png(60, 60), "w10 <image> </s> <s> w11")))
    assert len(served.started.images) == 1
    plain = await ask(pair.stub, unreduced(chat(png(60, 60), "w10 w11")))
    assert served.started.images[0].tokens_after == plain.started.images[0].tokens_after


async def test_both_stages_keep_their_budgets_over_all_images(pair: Pair) -> None:
    request = raw("USER: <image> w9 <image> w10 ASSISTANT:", png(150, 60), png(30, 30))
    request.reduction.budget.tokens_per_tile = 4
    request.prune.budgets.add().tokens = 5
    served = await ask(pair.stub, request)
    (pruned,) = served.finished.pruning
    assert pruned.tokens_before == sum(image.tokens_after for image in served.started.images)
    assert pruned.tokens_after == 5
