"""Tiny Video-LLaVA checkpoints with random weights, in every style they come in, and what transformers makes of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, VideoLlavaConfig, VideoLlavaForConditionalGeneration
from transformers.models.video_llava.image_processing_video_llava import VideoLlavaImageProcessor

from tests.support.llava_next import LLAVA_NEXT

FRAME_PIXELS = 56
FRAME_TOKENS = 16  # and the [CLS] token
IMAGE, VIDEO = 255, 254
_SIZE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
_TEXT: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 256,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# In the family's manner: an image is named by one word, a video by another.
_TEMPLATE = """{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image> {% elif part['type'] == 'video' %}<video> {% else %}{{ part['text'] }} {% endif %}\
{% endfor %}{% if message['role'] == 'assistant' %}</s> {% endif %}{% endfor %}ASSISTANT:"""

_kept_folders: list[TemporaryDirectory[str]] = []


def write_video_llava(
    directory: Path, *, style: str = "hub", shards: int = 1, dtype: torch.dtype = torch.float32, seed: int = 5
) -> Any:
    """Writes a checkpoint; returns the model itself.

    `style`: of its tensors' names: "hub" as the family's checkpoint has them, "old" without the inner `vision_model`, "new"
    below `model`, and "newest" without both.
    """
    config = VideoLlavaConfig(
        vision_config=CLIPVisionConfig(**_SIZE, image_size=FRAME_PIXELS, patch_size=14),
        text_config=_TEXT | _SIZE,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_seq_length=FRAME_TOKENS,
        video_seq_length=8 * (FRAME_TOKENS + 1),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VideoLlavaForConditionalGeneration(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=1.0 if parameter.dim() == 1 else 0.3)
    model.eval().requires_grad_(False).to(dtype).save_pretrained(directory)
    _write_tensors(directory, style, shards)
    VideoLlavaImageProcessor(
        size={"shortest_edge": FRAME_PIXELS}, crop_size={"height": FRAME_PIXELS, "width": FRAME_PIXELS}
    ).save_pretrained(directory)
    _write_text_files(directory)
    return model


@cache
def shared_video_llava() -> tuple[Path, Any]:
    """A checkpoint and its model for all tests that only read; lasts as long as the process."""
    directory = TemporaryDirectory(prefix="video-llava-")
    _kept_folders.append(directory)
    return Path(directory.name), write_video_llava(Path(directory.name))


def frames_of_noise(count: int, width: int = 80, height: int = 60, seed: int = 0) -> list[Image.Image]:
    """Frames that have nothing in common."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(frame.numpy()) for frame in noise]


def pixel_values(directory: Path, images: Sequence[Image.Image]) -> torch.Tensor:
    """transformers' own image processor, [images, 3, height, width]."""
    processor = VideoLlavaImageProcessor.from_pretrained(directory)
    pixels: torch.Tensor = next(iter(processor(images=list(images), return_tensors="pt").values()))
    return pixels


@torch.inference_mode()
def generate(
    model: Any, ids: Sequence[int], *, images: torch.Tensor | None, videos: torch.Tensor | None, new_tokens: int
) -> list[int]:
    """transformers' greedy answer; `ids` has a placeholder for each token of [images, 3, …] and [videos, frames, 3, …]."""
    prompt = torch.tensor([list(ids)])
    pixels = {"pixel_values": images, "pixel_values_videos": videos}
    given = {name: tensor for name, tensor in pixels.items() if tensor is not None}
    mask = torch.ones_like(prompt)
    made = model.generate(
        input_ids=prompt, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, **given
    )
    return [int(token) for token in made[0, prompt.shape[1] :]]


def _write_tensors(directory: Path, style: str, shards: int) -> None:
    file = directory / "model.safetensors"
    tensors = {_name(key, style): tensor for key, tensor in load_file(file).items()}
    file.unlink()
    files = {name: f"model-{index % shards:05}.safetensors" for index, name in enumerate(sorted(tensors))}
    if shards == 1:
        files = dict.fromkeys(tensors, file.name)
    else:
        index = {"metadata": {}, "weight_map": files}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    for shard in set(files.values()):
        held = {name: tensor for name, tensor in tensors.items() if files[name] == shard}
        save_file(held, directory / shard, metadata={"format": "pt"})


def _name(key: str, style: str) -> str:
    """From what transformers writes: `language_model.model…`, `image_tower…`, `video_tower…`."""
    if style in ("hub", "new"):
        key = key.replace("_tower.", "_tower.vision_model.")
    if style in ("new", "newest"):
        if key.startswith("language_model.lm_head"):
            return key.removeprefix("language_model.")
        return "model." + key.replace("language_model.model.", "language_model.")
    return key


def _write_text_files(directory: Path) -> None:
    """Whole words, as the LLaVA-NeXT parity checkpoint has them, and one more for videos."""
    words = json.loads((LLAVA_NEXT / "tokenizer.json").read_text())
    words["model"]["vocab"]["<video>"] = VIDEO
    image = words["added_tokens"][-1]
    words["added_tokens"].insert(-1, image | {"id": VIDEO, "content": "<video>"})
    (directory / "tokenizer.json").write_text(json.dumps(words))
    shutil.copy(LLAVA_NEXT / "tokenizer_config.json", directory)
    (directory / "chat_template.jinja").write_text(_TEMPLATE)
