"""The fingerprint changes with everything that the tokens depend on, and with nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from encoder_service import fingerprint as module
from encoder_service.fingerprint import fingerprint
from tests.support.encoder import LLAVA15
from tests.support.llava_next import make_checkpoint
from tests.support.qwen import make_qwen
from tests.support.video_llava import write_video_llava
from tests.support.vision import load, shared_model
from vscan.packed_linear import PackedLinear


def copied(folder: Path) -> Path:
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    return folder


CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "llava": copied,
    "llava_next": make_checkpoint,
    "qwen2_5_vl": make_qwen,
    "video_llava": write_video_llava,
}


def test_the_same_checkpoint_has_the_same_fingerprint() -> None:
    assert len(fingerprint(shared_model())) == 32
    assert fingerprint(load()) == fingerprint(shared_model())


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_packing_changes_neither_the_fingerprint_nor_more_than_the_last_bits(family: str, tmp_path: Path) -> None:
    CHECKPOINTS[family](tmp_path)
    model = load(tmp_path, shallow_layer=None, window=None)
    image = model.preprocess(Image.new("RGB", (80, 50), "teal"))
    before = fingerprint(model)
    with torch.inference_mode():
        expected = model.project(model.look([image]).features)
        model.pack()
        assert fingerprint(model) == before
        torch.testing.assert_close(model.project(model.look([image]).features), expected, rtol=1e-4, atol=1e-5)
    layers = [layer for module in model.modules().values() for layer in module.modules()]
    assert any(isinstance(layer, PackedLinear) for layer in layers) == torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    assert not any(type(layer) is torch.nn.Linear for layer in layers if torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.encoder.layers.6.mlp.fc2.bias",
        "vision_tower.embeddings.class_embedding",
        "multi_modal_projector.linear_1.weight",
    ],
)
def test_one_bit_of_a_weight_counts(name: str, tmp_path: Path) -> None:
    tensors = load_file(copied(tmp_path) / "model.safetensors")
    tensors[name].view(torch.int16).view(-1)[0] ^= 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(load(tmp_path)) != fingerprint(shared_model())


@pytest.mark.parametrize("name", ["vision_tower.encoder.layers.7.mlp.fc2.bias", "language_model.lm_head.weight"])
def test_weights_that_are_never_read_do_not_count(name: str, tmp_path: Path) -> None:
    tensors = load_file(copied(tmp_path) / "model.safetensors")
    tensors[name] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert fingerprint(load(tmp_path)) == fingerprint(shared_model())


@pytest.mark.parametrize(("key", "value"), [("image_mean", [0.5, 0.5, 0.5]), ("resample", 2), ("do_normalize", False)])
def test_preprocessing_counts(key: str, value: object, tmp_path: Path) -> None:
    path = copied(tmp_path) / "processor_config.json"
    stated = json.loads(path.read_text())
    stated["image_processor"][key] = value
    path.write_text(json.dumps(stated))
    assert fingerprint(load(tmp_path)) != fingerprint(shared_model())


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("vision_config", "num_attention_heads", 8),
        ("vision_config", "hidden_act", "gelu"),
        (None, "projector_hidden_act", "relu"),
    ],
)
def test_configuration_that_no_weight_shows_counts(part: str | None, key: str, value: object, tmp_path: Path) -> None:
    path = copied(tmp_path) / "config.json"
    stated = json.loads(path.read_text())
    (stated[part] if part else stated)[key] = value
    path.write_text(json.dumps(stated))
    assert fingerprint(load(tmp_path)) != fingerprint(shared_model())


def test_scan_settings_dtype_and_code_revision_count(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [load(shallow_layer=4), load(window=8), load(dtype=torch.bfloat16)]
    found = {fingerprint(model) for model in [shared_model(), *others]}
    monkeypatch.setattr(module, "CODE_REVISION", module.CODE_REVISION + 1)
    assert len(found | {fingerprint(shared_model())}) == 5
