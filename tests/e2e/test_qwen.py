"""Qwen2.5-VL through both services: with reduction off the answers are those of transformers, with it they are pruned."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoTokenizer

from tests.support.asking import ask, decoder_stub, part, refusal
from tests.support.qwen import END_OF_TEXT, IM_END, generate, image_processor, noise, shared_qwen
from tests.support.stack import in_process_stack
from vscan.errors import InvalidArgument
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import visual_tokens_pb2

NEW_TOKENS = 10
SHAPES = [(4, 4), (2, 2), (1, 9), (9, 2), (5, 7), (3, 12), (8, 8)]
Content = str | tuple[int, int]


def message(*contents: Content) -> list[Content]:
    return list(contents)


# Messages of the user's; each is answered before the next.
CHATS: list[list[list[Content]]] = [
    [message("how many triangles are there?")],
    *[[message(shape, "is there a star?")] for shape in SHAPES],
    *[[message("before ", shape, " and after ", SHAPES[0])] for shape in SHAPES],
    [message((3, 8), "what is it?"), message("and now?")],
    [message((6, 3), "first"), message((2, 5), "second, the same?")],
    [message("no picture yet"), message((4, 6))],
]


def png(shape: tuple[int, int], seed: int, *, odd: int = 0) -> bytes:
    """A picture; `odd` pixels wider and higher than whole tokens, so that it is resized."""
    picture = noise(*shape, seed)
    if odd:
        picture = picture.resize((picture.width + odd, picture.height + odd))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def expected(turns: Sequence[tuple[str, Sequence[str | bytes]]]) -> list[int]:
    """transformers' answer: its chat template, its image processor, its model."""
    directory, model = shared_qwen()
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    conversation = [
        {"role": role, "content": [{"type": "text", "text": c} if isinstance(c, str) else {"type": "image"} for c in contents]}
        for role, contents in turns
    ]
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    files = [content for _, contents in turns for content in contents if isinstance(content, bytes)]
    inputs: Any = {}
    if files:
        pictures = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        inputs = image_processor(directory)(pictures, return_tensors="pt")
        for grid in inputs.image_grid_thw:
            text = text.replace("<|image_pad|>", "<|placeholder|>" * (int(grid.prod()) // 4), 1)
    ids = tokenizer(text.replace("<|placeholder|>", "<|image_pad|>"), add_special_tokens=False).input_ids
    return generate(model, ids, inputs, new_tokens=NEW_TOKENS, end=[IM_END, END_OF_TEXT])


def request(turns: Sequence[tuple[str, Sequence[str | bytes]]]) -> pb.GenerateRequest:
    roles = {"user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT}
    messages = [pb.Message(role=roles[role], parts=[part(content) for content in contents]) for role, contents in turns]
    return pb.GenerateRequest(chat=pb.Chat(messages=messages), sampling=pb.SamplingParams(max_new_tokens=NEW_TOKENS))


async def test_chats_without_reduction_are_answered_as_transformers_does() -> None:
    generator = random.Random(0)
    async with in_process_stack(checkpoint=shared_qwen()[0]) as stack, decoder_stub(stack.decoder_address) as stub:
        for seed, asked in enumerate(CHATS):
            turns: list[tuple[str, list[str | bytes]]] = []
            for contents in asked:
                odd = generator.randrange(13)
                turns.append(("user", [c if isinstance(c, str) else png(c, seed, odd=odd) for c in contents]))
                wanted = request(turns)
                wanted.reduction.method = visual_tokens_pb2.REDUCTION_METHOD_NONE
                wanted.prune.rater = pb.RATER_NONE
                served = await ask(stub, wanted)
                assert served.ids == expected(turns), asked
                turns.append(("assistant", [served.text or "nothing"]))


@pytest.mark.parametrize("positions", [pb.POSITION_POLICY_KEEP, pb.POSITION_POLICY_RENUMBER])
async def test_default_budgets_prune_both_images_of_a_prompt(positions: pb.PositionPolicy) -> None:
    async with in_process_stack(checkpoint=shared_qwen()[0]) as stack, decoder_stub(stack.decoder_address) as stub:
        wanted = request([("user", [png((12, 6), 0), "and", png((3, 4), 1), "which?"])])
        wanted.prune.positions = positions
        served = await ask(stub, wanted)
    # A sixth of 72 and of 12 tokens; a third of them from half the layers on.
    assert [image.tokens_after for image in served.started.images] == [12, 2]
    assert [(report.layer, report.tokens_after) for report in served.finished.pruning] == [(2, 4)]


async def test_an_image_of_more_positions_than_the_model_has_is_refused(tmp_path: Path) -> None:
    """However few of its tokens are kept; one that fits is answered, up to the last position."""
    shutil.copytree(shared_qwen()[0], tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 128
    (tmp_path / "config.json").write_text(json.dumps(config))

    def of_width(tokens: int) -> pb.GenerateRequest:
        wanted = request([("user", [png((8, tokens), 0), "what?"])])
        wanted.reduction.budget.tokens_per_tile = 2
        wanted.sampling.ignore_eos = True
        return wanted

    async with in_process_stack(checkpoint=tmp_path) as stack, decoder_stub(stack.decoder_address) as stub:
        error = await refusal(stub, of_width(130))
        assert isinstance(error, InvalidArgument)
        assert error.field == "messages"
        assert error.limit == "128 positions of prompt and answer together"
        error = await refusal(stub, of_width(70))
        assert isinstance(error, InvalidArgument)
        assert error.field == "sampling.max_new_tokens"
        fits = of_width(20)
        fits.sampling.ClearField("max_new_tokens")
        served = await ask(stub, fits)
        rows = served.started.prompt_tokens
        assert len(served.ids) == 128 - (rows - 2 + 20)
