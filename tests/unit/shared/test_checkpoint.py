"""A checkpoint of any common layout loads, half by half; one that is broken or lacks the half is refused in one line."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel, LlamaForCausalLM

from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError

SOURCE = Path(__file__).parents[2] / "data" / "parity" / "llava15"
LANGUAGE_KEYS = {r"^(model\.)?language_model\.lm_head": "lm_head", r"^(model\.)?language_model\.(model\.)?": "model."}
VISION_KEYS = {r"^(model\.)?vision_tower\.(vision_model\.)?": ""}
PROJECTOR = "multi_modal_projector.linear_1.bias"
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    tensors: Weights = load_file(SOURCE / "model.safetensors")
    return tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint with a configuration and no tensors yet."""
    shutil.copy(SOURCE / "config.json", tmp_path)
    return tmp_path


def language_half(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    checkpoint = Checkpoint.open(folder)
    config = checkpoint.config.get_text_config()
    return checkpoint.load_half(LlamaForCausalLM, config, key_mapping=LANGUAGE_KEYS, dtype=dtype, device="cpu")


def vision_half(folder: Path) -> Any:
    checkpoint = Checkpoint.open(folder)
    config = checkpoint.config.vision_config
    return checkpoint.load_half(CLIPVisionModel, config, key_mapping=VISION_KEYS, dtype=torch.float32, device="cpu")


def save_shards(folder: Path, weights: Weights, count: int = 3) -> list[Path]:
    """The weights in several files, dealt out so that each half is in all of them."""
    names = [f"model-{n + 1:05}-of-{count:05}.safetensors" for n in range(count)]
    where = {key: names[n % count] for n, key in enumerate(sorted(weights))}
    for name in names:
        save_file({key: weights[key] for key in where if where[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return [folder / name for name in names]


def as_newer_files(key: str) -> str:
    """`model.language_model.layers…`, `lm_head`, `model.vision_tower…`."""
    if key.startswith("language_model.lm_head"):
        return "lm_head" + key.removeprefix("language_model.lm_head")
    return "model." + key.replace("language_model.model.", "language_model.")


def with_vision_model(key: str) -> str:
    """The hub's oldest files: `vision_tower.vision_model…`."""
    return key.replace("vision_tower.", "vision_tower.vision_model.")


STYLES: dict[str, Callable[[str], str]] = {
    "as saved": lambda key: key,
    "newer": as_newer_files,
    "with vision_model": with_vision_model,
}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("sharded", [False, True])
def test_both_halves_load_bit_for_bit(folder: Path, weights: Weights, style: str, sharded: bool) -> None:
    renamed = {STYLES[style](key): value for key, value in weights.items()}
    if sharded:
        save_shards(folder, renamed)
    else:
        save_file(renamed, folder / "model.safetensors")
    language, vision = language_half(folder).state_dict(), vision_half(folder).state_dict()
    for key, value in weights.items():
        if key.startswith("language_model."):
            assert torch.equal(language.pop(key.removeprefix("language_model.")), value)
        elif key.startswith("vision_tower."):
            assert torch.equal(vision.pop(key.removeprefix("vision_tower.")), value)
    assert (language, vision) == ({}, {})


def test_a_half_needs_nothing_of_the_other(folder: Path, weights: Weights) -> None:
    save_file({key: value for key, value in weights.items() if key.startswith("language_model.")}, folder / "model.safetensors")
    assert isinstance(language_half(folder), LlamaForCausalLM)


def test_a_half_is_ready_to_run(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors")
    half = language_half(folder, torch.bfloat16)
    assert not half.training
    assert not any(parameter.requires_grad for parameter in half.parameters())
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("sharded", [False, True])
def test_single_tensors_load_by_name(folder: Path, weights: Weights, sharded: bool) -> None:
    if sharded:
        save_shards(folder, weights)
    else:
        save_file(weights, folder / "model.safetensors")
    checkpoint = Checkpoint.open(folder)
    loaded = checkpoint.load_tensors([PROJECTOR], dtype=torch.float16, device="cpu")
    assert set(checkpoint.files) == set(weights)
    assert torch.equal(loaded[PROJECTOR], weights[PROJECTOR].half())
    with pytest.raises(CheckpointError, match="lacks the tensor image_newline"):
        checkpoint.load_tensors(["image_newline"], dtype=torch.float16, device="cpu")


@pytest.mark.parametrize(
    ("half", "prefix", "named"),
    [(language_half, "language_model.", "LlamaForCausalLM"), (vision_half, "vision_tower.", "CLIPVisionModel")],
)
def test_a_missing_half_is_refused(
    folder: Path, weights: Weights, half: Callable[[Path], Any], prefix: str, named: str
) -> None:
    save_file({key: value for key, value in weights.items() if not key.startswith(prefix)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"lacks \d+ tensors of {named}"):
        half(folder)


def test_one_missing_tensor_is_named(folder: Path, weights: Weights) -> None:
    save_file(
        {key: value for key, value in weights.items() if key != "language_model.model.norm.weight"},
        folder / "model.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors of LlamaForCausalLM, first model\.norm\.weight"):
        language_half(folder)


def test_a_tensor_of_another_shape_is_named(folder: Path, weights: Weights) -> None:
    save_file({**weights, "language_model.model.norm.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is \[3\] where LlamaForCausalLM needs"):
        language_half(folder)


class Marked:
    """Unpickling it leaves a mark in the class."""

    unpickled = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Marked, "unpickled", True))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "model.pt"])
def test_pickled_weights_are_refused_and_not_read(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Marked()))
    with pytest.raises(CheckpointError, match="only safetensors are loaded"):
        assert Checkpoint.open(folder).files
    assert not Marked.unpickled


def test_an_index_that_names_a_pickled_shard_is_refused(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(pickle.dumps(Marked()))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": "weights.bin"}}))
    with pytest.raises(CheckpointError, match=r"'weights\.bin'; only safetensors"):
        assert Checkpoint.open(folder).files
    assert not Marked.unpickled


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", ""])
def test_an_index_leads_nowhere_else(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match="beside it"):
        assert Checkpoint.open(folder).files


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 3}}', '{"weight_map": null}', "\udcff"]
)
def test_a_broken_index_is_refused(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json cannot be read"):
        assert Checkpoint.open(folder).files


def test_a_missing_shard_is_named(folder: Path, weights: Weights) -> None:
    save_shards(folder, weights)[1].unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00003\.safetensors"):
        assert Checkpoint.open(folder).files


def test_a_truncated_shard_is_refused(folder: Path, weights: Weights) -> None:
    shard = save_shards(folder, weights)[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="LlamaForCausalLM cannot be loaded"):
        language_half(folder)
    checkpoint = Checkpoint.open(folder)
    name = next(key for key, file in checkpoint.files.items() if file == shard)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load_tensors([name], dtype=torch.float32, device="cpu")


def test_an_index_that_promises_what_a_shard_lacks_is_refused(folder: Path, weights: Weights) -> None:
    shard = save_shards(folder, weights)[1]
    save_file({"other": torch.zeros(1)}, shard)
    with pytest.raises(CheckpointError, match="lacks"):
        vision_half(folder)
    checkpoint = Checkpoint.open(folder)
    name = next(key for key, file in checkpoint.files.items() if file == shard)
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.load_tensors([name], dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(folder: Path, keep: int) -> None:
    (folder / "model.safetensors").write_bytes((SOURCE / "model.safetensors").read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cannot be read"):
        assert Checkpoint.open(folder).files


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"model_type": "unheard-of"}',
        '{"model_type": "llava", "text_config": 3}',
        '{"model_type": "llama", "hidden_size": "many"}',
        "\udcff\udcfe",
    ],
)
def test_a_broken_configuration_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read") as caught:
        assert Checkpoint.open(tmp_path).config
    assert "\n" not in str(caught.value)


SERVED = r"llava, qwen2_5_vl$"


@pytest.mark.parametrize(
    ("stated", "problem"),
    [
        ({"model_type": "idefics3"}, "model family idefics3 is not served, only"),
        ({"model_type": "unheard-of"}, "model family unheard-of is not served, only"),
        ({}, "without model_type is not served, only"),
        ({"model_type": ["llava"]}, "is not served, only"),
        ({"model_type": "llava", "text_config": {"model_type": "unheard-of"}}, "unheard-of'?; served are"),
        ({"model_type": "llava", "text_config": 3}, r"config\.json cannot be read: .*; served are"),
        ({"model_type": "llava", "mm_vision_tower": "openai/clip"}, "Hugging Face layout is needed, .*llava-1.5-7b-hf.*, of"),
        ({"model_type": "llava", "mm_video_tower": "LanguageBind"}, "Hugging Face layout is needed, .*Video-LLaVA-7B-hf, of"),
        ({"model_type": "llava_llama"}, "Hugging Face layout is needed, .*, of"),
    ],
)
def test_what_is_not_served_is_told_what_is(tmp_path: Path, stated: dict[str, Any], problem: str) -> None:
    """Also where the weights are pickled, as those of the original LLaVA are."""
    (tmp_path / "config.json").write_text(json.dumps(stated))
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}: .*{problem} {SERVED}") as caught:
        Checkpoint.open(tmp_path).check_family({"qwen2_5_vl", "llava"})
    assert "\n" not in str(caught.value)


def test_the_name_of_a_served_family_is_enough(folder: Path) -> None:
    Checkpoint.open(folder).check_family({"llava"})


@pytest.mark.parametrize("part", ["config.json", "text_config", "vision_config"])
def test_a_quantisation_is_refused(folder: Path, part: str) -> None:
    stated = json.loads((folder / "config.json").read_text())
    (stated if part == "config.json" else stated[part])["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(stated))
    with pytest.raises(CheckpointError, match=rf"{part} has a quantization_config; only weights that are not .* bfloat16$"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8])
@pytest.mark.parametrize(
    ("half", "other", "tensor"),
    [
        (language_half, vision_half, "language_model.model.layers.1.mlp.up_proj.weight"),
        (language_half, vision_half, "language_model.lm_head.weight"),
        (vision_half, language_half, "vision_tower.encoder.layers.0.self_attn.q_proj.weight"),
    ],
)
@pytest.mark.parametrize("style", STYLES)
def test_a_quantised_tensor_is_refused_by_the_half_that_has_it(
    folder: Path, weights: Weights, half: Any, other: Any, tensor: str, style: str, dtype: torch.dtype
) -> None:
    stored = {STYLES[style](key): value.to(dtype) if key == tensor else value for key, value in weights.items()}
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {STYLES[style](tensor)} is stored as (F8_E4M3|I8|U8); "):
        half(folder)
    other(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_any_unquantised_weights_load(folder: Path, weights: Weights, dtype: torch.dtype) -> None:
    """Indices beside them, which older files have, are no weights."""
    stored = {key: value.to(dtype) for key, value in weights.items()}
    stored["vision_tower.embeddings.position_ids"] = torch.arange(10)[None]
    save_file(stored, folder / "model.safetensors")
    assert language_half(folder).dtype == vision_half(folder).dtype == torch.float32


def test_a_quantised_single_tensor_is_refused(folder: Path, weights: Weights) -> None:
    save_file({**weights, PROJECTOR: weights[PROJECTOR].to(torch.int8)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{PROJECTOR} is stored as I8"):
        Checkpoint.open(folder).load_tensors([PROJECTOR], dtype=torch.float32, device="cpu")


def test_remote_code_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}')
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        assert Checkpoint.open(tmp_path).config
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match=r"no config\.json"):
            Checkpoint.open(path)


def test_the_pair_fingerprint_is_of_what_the_model_is(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors")
    stated = json.loads((folder / "config.json").read_text())

    def fingerprint(config: dict[str, Any]) -> bytes:
        (folder / "config.json").write_text(json.dumps(config))
        return Checkpoint.open(folder).pair_fingerprint()

    same = fingerprint(stated)
    assert len(same) == 32
    assert fingerprint(dict(reversed(stated.items()))) == same
    assert fingerprint({**stated, "transformers_version": "5.17.0", "dtype": "bfloat16", "_name_or_path": "x"}) == same
    assert fingerprint({**stated, "vision_feature_layer": -1}) != same
    assert fingerprint({**stated, "text_config": {**stated["text_config"], "rms_norm_eps": 0.5}}) != same


def test_the_name_is_the_folders(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors")
    assert Checkpoint.open(folder / ".").name == folder.name
    assert Checkpoint.open(str(folder)).model_type == "llava"
