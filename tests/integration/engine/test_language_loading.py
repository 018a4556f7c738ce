"""The language half of a checkpoint, in every style it comes in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

from decoder_service.language.registry import families, load_language
from tests.support.engines import ids_of, make_engine, run_all
from tests.support.language_models import PARITY, ask, lay_out
from tests.support.video_llava import IMAGE, VIDEO, write_video_llava
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError

TEXT: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PROMPT = [1, 9, 33, 12, 40]


def make_checkpoint(directory: Path, *, tied: bool = False, **text: Any) -> LlavaForConditionalGeneration:
    """A tiny LLaVA with random weights, written as transformers writes it."""
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    stated = {"model_type": "llama", **TEXT, "tie_word_embeddings": tied} | text
    config = LlavaConfig(vision_config=vision, text_config=stated, image_token_index=63, tie_word_embeddings=tied)
    torch.manual_seed(3)
    model = LlavaForConditionalGeneration(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.eval().requires_grad_(False).save_pretrained(directory)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PARITY / "llava15" / file, directory)
    return model


def load(directory: Path) -> Any:
    return load_language(Checkpoint.open(directory), dtype=torch.float32, device="cpu")


def rename(directory: Path, name: Any) -> None:
    file = directory / "model.safetensors"
    tensors = {name(key): tensor for key, tensor in load_file(file).items()}
    save_file({key: tensor for key, tensor in tensors.items() if key}, file, metadata={"format": "pt"})


def restate(directory: Path, **changes: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def assert_answers_equal(directory: Path, reference: Any) -> None:
    request = ask(lay_out([PROMPT]), max_new_tokens=8)
    ours = ids_of(run_all(make_engine(load(directory), prune_layers=(1,)), [request])[request.request_id])
    ids = torch.tensor([PROMPT])
    theirs = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, eos_token_id=-1)
    assert ours == theirs[0, len(PROMPT) :].tolist()


def to_new_style(key: str) -> str:
    for old, new in (("language_model.model.", "model.language_model."), ("language_model.lm_head", "lm_head")):
        if key.startswith(old):
            return new + key.removeprefix(old)
    return f"model.{key}"


@pytest.mark.parametrize("style", ["old", "new"])
@pytest.mark.parametrize("tied", [False, True])
def test_both_key_styles_and_tied_heads(tmp_path: Path, style: str, tied: bool) -> None:
    reference = make_checkpoint(tmp_path, tied=tied)
    keys = set(load_file(tmp_path / "model.safetensors"))
    assert ("language_model.lm_head.weight" in keys) != tied
    if style == "new":
        rename(tmp_path, to_new_style)
    assert_answers_equal(tmp_path, reference)


@pytest.mark.parametrize("level", ["composite", "text"])
def test_a_tie_stated_at_one_level_only_holds(tmp_path: Path, level: str) -> None:
    reference = make_checkpoint(tmp_path, tied=True)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    restate(tmp_path, tie_word_embeddings=level == "composite", text_config=text | {"tie_word_embeddings": level == "text"})
    assert_answers_equal(tmp_path, reference)


@pytest.mark.parametrize("style", ["hub", "old", "new", "newest"])
def test_video_llava_in_every_key_style(tmp_path: Path, style: str) -> None:
    assert_answers_equal(tmp_path, write_video_llava(tmp_path, style=style, shards=1 + (style == "hub")))
    tokens = load(tmp_path).tokens
    assert (tokens.placeholder_id, tokens.video_placeholder_id) == (IMAGE, VIDEO)
    assert {IMAGE, VIDEO} <= tokens.control_ids


@pytest.mark.parametrize("text_model", ["mistral", "qwen2"])
def test_other_text_models(tmp_path: Path, text_model: str) -> None:
    reference = make_checkpoint(tmp_path, model_type=text_model)
    assert_answers_equal(tmp_path, reference)


def test_a_sliding_window_bounds_the_context(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, model_type="mistral", sliding_window=48)
    assert load(tmp_path).shape.max_context_tokens == 48


def test_half_a_checkpoint_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    rename(tmp_path, lambda key: "" if "layers.1.mlp" in key and key.startswith("language") else key)
    with pytest.raises(CheckpointError, match="lacks 3 tensors of LlamaForCausalLM"):
        load(tmp_path)


def test_an_untied_head_that_is_missing_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    rename(tmp_path, lambda key: "" if "lm_head" in key else key)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight"):
        load(tmp_path)


def test_unknown_families_and_text_models_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "gemma", model_type="gemma", head_dim=8)
    with pytest.raises(CheckpointError, match="text model gemma is not served, only llama"):
        load(tmp_path / "gemma")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    shutil.copy(PARITY / "llava15" / "model.safetensors", tmp_path)
    with pytest.raises(CheckpointError, match="model family llama is not served, only llava"):
        load(tmp_path)


def test_rotary_embeddings_that_depend_on_the_longest_sequence_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    restate(tmp_path, text_config=text | {"rope_parameters": rope})
    with pytest.raises(CheckpointError, match="rotary embedding dynamic"):
        load(tmp_path)


def test_special_tokens_come_from_the_files(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    tokens = load(tmp_path).tokens
    assert tokens.placeholder_id == 63
    assert tokens.end_ids == {2, 7}
    assert {0, 1, 2, 7, 63, 255} == tokens.control_ids
    assert tokens.unknown_ids == {3}
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load(tmp_path)


def test_families_are_found() -> None:
    assert "llava" in families()
