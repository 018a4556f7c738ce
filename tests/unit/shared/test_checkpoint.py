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
        Checkpoint.open(folder)
    assert not Marked.unpickled


def test_an_index_that_names_a_pickled_shard_is_refused(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(pickle.dumps(Marked()))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": "weights.bin"}}))
    with pytest.raises(CheckpointError, match=r"'weights\.bin'; only safetensors"):
        Checkpoint.open(folder)
    assert not Marked.unpickled


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", ""])
def test_an_index_leads_nowhere_else(folder: Path, name: str) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match="beside it"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": ["a"]}', '{"weight_map": {"a": 3}}', '{"weight_map": null}', "\udcff"]
)
def test_a_broken_index_is_refused(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json cannot be read"):
        Checkpoint.open(folder)


def test_a_missing_shard_is_named(folder: Path, weights: Weights) -> None:
    save_shards(folder, weights)[1].unlink()
    with pytest.raises(CheckpointError, match=r"lacks model-00002-of-00003\.safetensors"):
        Checkpoint.open(folder)


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
        Checkpoint.open(folder)


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
        Checkpoint.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_remote_code_is_refused_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}')
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        Checkpoint.open(tmp_path)
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
