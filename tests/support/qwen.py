"""Tiny random Qwen2.5-VL checkpoints, in the key styles they come in, and what transformers makes of them."""

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
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.support.tokenizers import LINES, TOOL

QWEN = Path(__file__).parents[1] / "data" / "parity" / "qwen25vl"
PIXELS_OF_A_TOKEN = 28
# Ids of the control tokens, as make_qwen adds them behind a vocabulary of 300.
_VOCABULARY = 300
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = range(_VOCABULARY, _VOCABULARY + 7)
# In the family's manner: a system message where there is none, an image or a video between marks of its own.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful "
    "assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    "bos_token_id": END_OF_TEXT,
    "eos_token_id": IM_END,
}
_VISION: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "fullatt_block_indexes": [1, 3],
    "out_hidden_size": 32,
    "window_size": 112,
}

_kept_folders: list[TemporaryDirectory[str]] = []


def make_qwen(
    directory: Path,
    *,
    style: str = "old",
    tied: bool = False,
    seed: int = 3,
    scale: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Writes a checkpoint; returns the model itself.

    `style`: "old" as transformers writes it; "hub" with a flat configuration, and in shards; "new" with new tensor names.
    `scale`: how many times wider than usual.
    """
    wider = {"hidden_size": scale * _TEXT["hidden_size"], "intermediate_size": scale * _TEXT["intermediate_size"]}
    rope = _TEXT["rope_parameters"] | {"mrope_section": [scale, scale, 2 * scale]}
    config = Qwen2_5_VLConfig(
        text_config=_TEXT | wider | {"rope_parameters": rope, "tie_word_embeddings": tied},
        vision_config=_VISION | wider | {"out_hidden_size": wider["hidden_size"]},
        tie_word_embeddings=tied,
        image_token_id=IMAGE_PAD,
        video_token_id=VIDEO_PAD,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config).to(dtype)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=1.0 if parameter.dim() == 1 else 0.25)
    shard = "64KB" if style == "hub" else "1GB"
    model.eval().requires_grad_(False).save_pretrained(directory, max_shard_size=shard)
    if style == "new":
        rename_tensors(directory, _to_new_style)
    _write_text_files(directory)
    if style == "hub":
        _flatten_configuration(directory)
    return model


def rename_tensors(directory: Path, name: Any) -> None:
    """Renames every tensor; those named "" are left out."""
    file = directory / "model.safetensors"
    tensors = {name(key): tensor for key, tensor in load_file(file).items()}
    save_file({key: tensor for key, tensor in tensors.items() if key}, file, metadata={"format": "pt"})


@cache
def shared_qwen() -> tuple[Path, Any]:
    """A checkpoint and its model for all tests that only read; lasts as long as the process."""
    directory = TemporaryDirectory(prefix="qwen-")
    _kept_folders.append(directory)
    return Path(directory.name), make_qwen(Path(directory.name))


def image_processor(directory: Path) -> Any:
    """transformers' own."""
    return Qwen2VLImageProcessorPil.from_pretrained(directory)


def noise(rows: int, columns: int, seed: int = 0) -> Image.Image:
    """A picture of a grid of that many tokens, which needs no resizing."""
    generator = torch.Generator().manual_seed(seed)
    sides = (rows * PIXELS_OF_A_TOKEN, columns * PIXELS_OF_A_TOKEN, 3)
    return Image.fromarray(torch.randint(0, 256, sides, generator=generator, dtype=torch.uint8).numpy())


def kinds_of(ids: torch.Tensor) -> torch.Tensor:
    """What each row is, as transformers counts: 0 text, 1 image, 2 video."""
    return (ids == IMAGE_PAD).int() + 2 * (ids == VIDEO_PAD).int()


@torch.inference_mode()
def generate(model: Any, ids: Sequence[int], inputs: Any, *, new_tokens: int, end: Sequence[int] = (-1,)) -> list[int]:
    """transformers' greedy answer; `ids` has one placeholder for each merged token, `inputs` is the processor's."""
    prompt = torch.tensor([list(ids)])
    made = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        mm_token_type_ids=kinds_of(prompt),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=list(end),
        pad_token_id=0,
        **inputs,
    )
    return [int(token) for token in made[0, prompt.shape[1] :]]


def _write_text_files(directory: Path) -> None:
    """Byte-level BPE, nothing put before a text, as the family has it."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=_VOCABULARY, initial_alphabet=alphabet, show_progress=False))
    core.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIALS])
    core.add_tokens([AddedToken(TOOL, normalized=False)])
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>").save_pretrained(directory)
    shutil.copy(QWEN / "preprocessor_config.json", directory)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [IM_END, END_OF_TEXT]}))


def _flatten_configuration(directory: Path) -> None:
    """The text half's fields beside the vision half's; limits on pixels by their older names."""
    file = directory / "config.json"
    stated = json.loads(file.read_text())
    text, vision = stated.pop("text_config"), stated["vision_config"]
    rope = text.pop("rope_parameters")
    flat = {key: value for key, value in text.items() if key not in ("model_type", "layer_types", "tie_word_embeddings")}
    flat |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]}}
    del vision["rope_parameters"]
    vision["model_type"] = "qwen2_5_vl"
    file.write_text(json.dumps(flat | stated))
    file = directory / "preprocessor_config.json"
    stated = json.loads(file.read_text())
    size = stated.pop("size")
    file.write_text(json.dumps(stated | {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}))


def _to_new_style(key: str) -> str:
    if key.startswith("model."):
        return "model.language_model." + key.removeprefix("model.")
    return key if key.startswith("lm_head") else "model." + key
