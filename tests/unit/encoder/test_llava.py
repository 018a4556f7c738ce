"""The walk through CLIP: its features are transformers', its scores are one row of attention, and it stops where it should."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel, LlavaForConditionalGeneration

from encoder_service.fingerprint import fingerprint
from encoder_service.vision import clip
from encoder_service.vision.base import VisionModel
from encoder_service.vision.registry import families
from tests.support.encoder import LLAVA15, PARITY
from tests.support.vision import load, pixels, prepared, shared_model
from vscan.errors import CheckpointError


def tower(model: VisionModel) -> CLIPVisionModel:
    found: CLIPVisionModel = model._tower  # type: ignore[attr-defined]
    return found


@pytest.fixture(scope="module")
def whole() -> LlavaForConditionalGeneration:
    """The same checkpoint as transformers loads it. In float64: its wide weights amplify float32 rounding a thousandfold."""
    return LlavaForConditionalGeneration.from_pretrained(LLAVA15, dtype=torch.float64).eval()


def full_attention(layer: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Attention weights of all rows of a CLIP layer, [tiles, heads, rows, rows], as the definition says."""
    normed = layer.layer_norm1(hidden)
    heads = [
        project(normed).unflatten(-1, (4, -1)).transpose(1, 2) for project in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    ]
    weights: torch.Tensor = (heads[0] @ heads[1].transpose(-1, -2) / heads[0].shape[-1] ** 0.5).softmax(-1)
    return weights


@torch.inference_mode()
def test_features_tokens_and_scores_are_those_of_transformers(whole: LlavaForConditionalGeneration) -> None:
    model = load(dtype=torch.float64)
    noise = pixels(model, 2).double()
    seen = model.look([prepared(model, noise)])
    states = whole.model.vision_tower(noise, output_hidden_states=True).hidden_states
    torch.testing.assert_close(seen.features, states[-2][:, 1:].flatten(0, 1))
    torch.testing.assert_close(model.project(seen.features), torch.cat(list(whole.get_image_features(noise).pooler_output)))
    for index, scores in ((5, seen.scores.shallow), (6, seen.scores.deep)):
        weights = full_attention(whole.model.vision_tower.encoder.layers[index], states[index])
        assert scores.dtype is torch.float32
        torch.testing.assert_close(scores, weights.mean(1)[:, 0, 1:].flatten().float(), rtol=1e-4, atol=1e-7)


@torch.inference_mode()
def test_every_layer_runs_fused_attention_and_nothing_past_the_feature_layer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load()
    calls: Counter[str] = Counter()
    for name, module in tower(model).named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    fused = torch.nn.functional.scaled_dot_product_attention

    def counting(*args: torch.Tensor, **kwargs: object) -> torch.Tensor:
        calls.update(["fused"])
        return fused(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    seen = model.look([prepared(model, pixels(model, 1))])
    assert model.scan.deep_layer == 6
    assert len(tower(model).encoder.layers) == 7, "the last of 8 layers is not even loaded"
    assert [calls[f"encoder.layers.{index}"] for index in range(7)] == [1] * 7
    assert calls["fused"] == 7
    assert calls["post_layernorm"] == 0
    model.project(seen.features)
    assert sum(calls[f"encoder.layers.{index}.self_attn.k_proj"] for index in range(7)) == 7, "no key is projected twice"


@torch.inference_mode()
def test_a_batch_is_its_tiles_alone() -> None:
    model, noise = shared_model(), pixels(shared_model(), 5)
    together = model.look([prepared(model, noise)])
    for tile in range(5):
        alone = model.look([prepared(model, noise[tile : tile + 1])])
        rows = slice(576 * tile, 576 * (tile + 1))
        torch.testing.assert_close(together.features[rows], alone.features, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.scores.deep[rows], alone.scores.deep, rtol=1e-5, atol=1e-8)


@torch.inference_mode()
@pytest.mark.parametrize(("layer_tiles", "passes"), [(0.5, [1] * 5), (2.5, [2, 2, 1]), (9, [5])])
def test_a_cpu_takes_as_many_tiles_at_a_time_as_its_cache_holds(
    layer_tiles: float, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    taken = []
    tower(model).encoder.layers[0].register_forward_pre_hook(lambda _, given: taken.append(len(given[0])))
    monkeypatch.setattr(clip, "_CPU_LAYER_BYTES", int(layer_tiles * 577 * tower(model).config.intermediate_size * 4))
    noise = pixels(model, 5)
    expected = shared_model().look([prepared(model, noise)])
    seen = model.look([prepared(model, noise)])
    assert taken == passes
    torch.testing.assert_close(seen.features, expected.features, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen.scores.shallow, expected.scores.shallow, rtol=1e-5, atol=1e-8)


def test_preprocessing_is_the_checkpoints_own() -> None:
    model = shared_model()
    image = Image.open(PARITY / "sq_a.png").convert("RGB")
    prepared = model.preprocess(image)
    assert prepared.grids == (model.grid,)
    means = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    deviations = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    raw = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(336, 336, 3).permute(2, 0, 1) / 255
    torch.testing.assert_close(prepared.pixels[0], (raw - means) / deviations, rtol=1e-5, atol=1e-5)
    assert model.preprocess(image.resize((100, 70))).pixels.shape == prepared.pixels.shape


def test_defaults_follow_the_paper() -> None:
    scan = load(shallow_layer=None, window=None).scan
    assert (scan.shallow_layer, scan.deep_layer, scan.window) == (2, 6, 6)


def changed(folder: Path, **config: object) -> Path:
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stated | config))
    return folder


@pytest.mark.parametrize(("stated", "deep"), [(-1, 7), (-2, 6), (8, 7), (7, 6), (6, 5), ([-2], 6)])
def test_the_feature_layer_may_count_from_either_end(stated: int | list[int], deep: int, tmp_path: Path) -> None:
    model = load(changed(tmp_path, vision_feature_layer=stated))
    assert model.scan.deep_layer == deep
    assert len(tower(model).encoder.layers) == deep + 1


@pytest.mark.parametrize("stated", [0, 9, -9, -8.5, [-2, -5], None])
def test_other_feature_layers_are_refused(stated: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="vision_feature_layer"):
        load(changed(tmp_path, vision_feature_layer=stated))


def renamed(folder: Path, rename: Callable[[str], str], shards: int = 1) -> Path:
    """A copy whose tensors have other names, in several files if asked."""
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    tensors = {rename(name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    files = {name: f"model-{index % shards}.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return folder


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name.replace("vision_tower.", "vision_tower.vision_model."),
        lambda name: name if name.startswith("language_model.lm_head") else f"model.{name}",
        lambda name: f"model.{name}".replace("vision_tower.", "vision_tower.vision_model."),
    ],
    ids=["hub", "new", "new with vision_model"],
)
def test_old_and_new_names_and_shards_give_the_same_model(rename: Callable[[str], str], tmp_path: Path) -> None:
    assert fingerprint(load(renamed(tmp_path, rename, shards=3))) == fingerprint(shared_model())


def test_preprocessor_config_is_read_where_processor_config_is_not_there(tmp_path: Path) -> None:
    shutil.copytree(LLAVA15, tmp_path, dirs_exist_ok=True)
    stated = json.loads((tmp_path / "processor_config.json").read_text())["image_processor"]
    (tmp_path / "processor_config.json").unlink()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    assert fingerprint(load(tmp_path)) == fingerprint(shared_model())


def processed(folder: Path, **config: object) -> Path:
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    stated = json.loads((folder / "processor_config.json").read_text())
    stated["image_processor"] |= config
    (folder / "processor_config.json").write_text(json.dumps(stated))
    return folder


def test_the_image_processor_may_be_llavas_own(tmp_path: Path) -> None:
    model = load(processed(tmp_path, image_processor_type="LlavaImageProcessor", do_pad=True))
    wide = Image.new("RGB", (200, 100), (255, 255, 255))
    prepared = model.preprocess(wide).pixels[0]
    assert prepared[0, 168, 168] > prepared[0, 10, 168], "padded above, not cut at the sides"
    assert fingerprint(model) != fingerprint(shared_model())


def test_another_image_processor_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="image processor ViTImageProcessor is not served"):
        load(processed(tmp_path, image_processor_type="ViTImageProcessorFast"))


def test_preprocessing_of_another_size_is_refused(tmp_path: Path) -> None:
    shutil.copytree(LLAVA15, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "processor_config.json").read_text()
    (tmp_path / "processor_config.json").write_text(text.replace("336", "224"))
    with pytest.raises(CheckpointError, match=r"makes \(1, 3, 224, 224\), the vision tower wants \(1, 3, 336, 336\)"):
        load(tmp_path)


def test_an_unknown_family_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model family clip_vision_model is not served, only llava"):
        load(changed(tmp_path, model_type="clip_vision_model"))
    assert "llava" in families()
