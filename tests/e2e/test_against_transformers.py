"""With reduction and pruning off, greedy answers over gRPC are those of transformers' own `generate`, token for token."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from embedded_model import checkpoint_dir
from embedded_model.album import draw_album
from tests.support.asking import ask, chat, decoder_stub, raw
from tests.support.decoder import PARITY_CHECKPOINT
from tests.support.encoder import png
from tests.support.stack import in_process_stack
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import visual_tokens_pb2

SEED = 20
NEW_TOKENS = 16
SHAPES = [(64, 48), (48, 131), (336, 336), (500, 120), (21, 400), (9, 10)]


class Reference:
    """transformers, as its documentation says: tokenizer, image processor, model."""

    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._processor = CLIPImageProcessorPil.from_pretrained(checkpoint)
        self._model: Any = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
        config = self._model.config.vision_config
        self._patches = (config.image_size // config.patch_size) ** 2

    def rendered(self, question: str) -> str:
        """The chat template's prompt for one image and a question."""
        parts = [{"type": "image"}, {"type": "text", "text": question}]
        turns = [{"role": "user", "content": parts}]
        return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    @torch.inference_mode()
    def generate(self, prompt: str, images: Sequence[bytes]) -> list[int]:
        """The new tokens, the end of sequence among them."""
        ids = self._tokenizer(prompt.replace("<image>", "<image>" * self._patches), return_tensors="pt").input_ids
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if images:
            pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
            inputs["pixel_values"] = self._processor(pictures, return_tensors="pt").pixel_values
        made = self._model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)
        return [int(token) for token in made[0, ids.shape[1] :]]


def unreduced(request: pb.GenerateRequest) -> pb.GenerateRequest:
    request.reduction.method = visual_tokens_pb2.REDUCTION_METHOD_NONE
    request.prune.rater = pb.RATER_NONE
    return request


def words(generator: random.Random) -> str:
    return " ".join(f"w{generator.randrange(7, 250)}" for _ in range(generator.randint(1, 8)))


async def test_chats_of_the_embedded_model() -> None:
    """24 questions about held-out pictures, through the checkpoint's own chat template, to the model's own end."""
    reference = Reference(checkpoint_dir())
    asked = 0
    async with in_process_stack(checkpoint=checkpoint_dir()) as stack, decoder_stub(stack.decoder_address) as stub:
        for picture in draw_album(SEED, pictures=8, questions=3):
            for question in picture.questions:
                request = unreduced(chat(picture.png(), question.text, max_new_tokens=NEW_TOKENS, ignore_eos=False))
                served = await ask(stub, request)
                expected = reference.generate(reference.rendered(question.text), [picture.png()])
                assert served.ids == expected, question.text
                assert served.finished.reason == pb.FINISH_REASON_END_OF_SEQUENCE
                asked += 1
    assert asked == 24


@pytest.mark.parametrize("images", [0, 1, 2])
async def test_raw_prompts_of_the_parity_checkpoint(images: int) -> None:
    """Random words around no, one and two images of any shape; this checkpoint never ends by itself."""
    reference = Reference(PARITY_CHECKPOINT)
    generator = random.Random(images)
    async with in_process_stack() as stack, decoder_stub(stack.decoder_address) as stub:
        for seed in range(len(SHAPES)):
            prompt = "USER: " + " <image> ".join(words(generator) for _ in range(images + 1)) + " ASSISTANT:"
            pictures = [png(seed + 10 * image, SHAPES[seed - image]) for image in range(images)]
            served = await ask(stub, unreduced(raw(prompt, *pictures, max_new_tokens=NEW_TOKENS, ignore_eos=False)))
            assert served.ids == reference.generate(prompt, pictures), prompt
