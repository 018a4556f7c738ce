"""Tiny LLaVA-NeXT checkpoints with random weights, in every style they come in, and transformers' own answers to them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

PARITY = Path(__file__).parents[1] / "data" / "parity"
LLAVA_NEXT = PARITY / "llava_next"
TILE_PIXELS = 56
TILE_TOKENS = 16
PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
PLACEHOLDER = 255
_TEXT: dict[str, Any] = {
    "vocab_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_TEMPLATE = """{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}\
{% if message['role'] == 'assistant' %}</s> {% endif %}{% endfor %}ASSISTANT:"""


def make_checkpoint(
    directory: Path,
    *,
    text_model: str = "llama",
    style: str = "old",
    pinpoints: Sequence[Sequence[int]] = PINPOINTS,
    hidden_size: int = 32,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """A checkpoint directory; `style` is that of its tensors' names: `old`, `hub` or `new`."""
    size: dict[str, Any] = {"hidden_size": hidden_size, "intermediate_size": 2 * hidden_size, "num_hidden_layers": 4}
    vision = CLIPVisionConfig(**size, num_attention_heads=4, image_size=TILE_PIXELS, patch_size=14)
    resolutions = [list(pinpoint) for pinpoint in pinpoints]
    config = LlavaNextConfig(
        vision_config=vision,
        text_config={"model_type": text_model, **_TEXT, **size},
        image_token_index=PLACEHOLDER,
        image_grid_pinpoints=resolutions,
    )
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = LlavaNextForConditionalGeneration(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=1.0 if parameter.dim() == 1 else 0.3)
    model.eval().to(dtype).save_pretrained(directory)
    _rename(directory / "model.safetensors", style)
    crop = {"height": TILE_PIXELS, "width": TILE_PIXELS}
    LlavaNextImageProcessorPil(
        size={"shortest_edge": TILE_PIXELS}, crop_size=crop, image_grid_pinpoints=resolutions
    ).save_pretrained(directory)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(LLAVA_NEXT / file, directory)
    (directory / "chat_template.jinja").write_text(_TEMPLATE)
    return directory


def png(width: int, height: int, seed: int = 0) -> bytes:
    """A picture of noise."""
    noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = io.BytesIO()
    Image.fromarray(noise.numpy()).save(buffer, "PNG")
    return buffer.getvalue()


class Reference:
    """transformers, as its documentation says: tokenizer, image processor, model."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.processor = LlavaNextImageProcessorPil.from_pretrained(checkpoint)
        self.model: Any = LlavaNextForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def rendered(self, turns: list[dict[str, Any]]) -> str:
        """The chat template's prompt."""
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    @torch.inference_mode()
    def visual_tokens(self, images: Sequence[bytes]) -> list[torch.Tensor]:
        """What its language model receives of each image, [tokens, hidden]."""
        return list(self.model.get_image_features(**self._pixels(images)).pooler_output)

    @torch.inference_mode()
    def generate(self, prompt: str, images: Sequence[bytes], new_tokens: int) -> list[int]:
        """The new tokens, the end of sequence among them."""
        counts = [len(tokens) for tokens in self.visual_tokens(images)] if images else []
        pieces = prompt.split("<image>")
        wide = pieces[0] + "".join("<image>" * count + piece for count, piece in zip(counts, pieces[1:], strict=True))
        ids = self.tokenizer(wide, return_tensors="pt").input_ids
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | (self._pixels(images) if images else {})
        made = self.model.generate(**inputs, do_sample=False, max_new_tokens=new_tokens, pad_token_id=0)
        return [int(token) for token in made[0, ids.shape[1] :]]

    def _pixels(self, images: Sequence[bytes]) -> dict[str, torch.Tensor]:
        pictures = [Image.open(io.BytesIO(image)).convert("RGB") for image in images]
        return dict(self.processor(pictures, return_tensors="pt"))


def _rename(file: Path, style: str) -> None:
    tensors = {_name(key, style): tensor for key, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def _name(key: str, style: str) -> str:
    """From what transformers writes: `language_model.model…`, `vision_tower…`, `image_newline`."""
    if style == "hub":
        return key.replace("vision_tower.", "vision_tower.vision_model.")
    if style == "new":
        if key.startswith("language_model.lm_head"):
            return key.removeprefix("language_model.")
        return "model." + key.replace("language_model.model.", "language_model.")
    return key
