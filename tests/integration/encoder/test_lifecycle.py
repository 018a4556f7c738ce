"""Starting, refusing to start, sharing a cache between processes, stopping."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.torch import load_file, save_file

from encoder_service.config import EncoderSettings
from encoder_service.service import SERVICE
from encoder_service.wiring import build
from tests.support.encoder import (
    LLAVA15,
    PARITY_SETTINGS,
    EncoderProcess,
    encode_request,
    encoder_channel,
    encoder_stub,
    png,
    refused_start,
    running_encoder,
)
from tests.support.redis_server import RedisServer
from tests.support.until import until
from vscan.cache.place import Place
from vscan.errors import InternalError, StartupError, Unavailable
from vscan.telemetry.providers import Telemetry

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel: grpc.aio.Channel, service: str = SERVICE) -> int:
    check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return int((await check).status)


async def encoded_by(process: EncoderProcess, data: bytes) -> Any:
    async with encoder_channel(process.address) as channel:
        assert await health(channel) == await health(channel, "") == SERVING
        return await encoder_stub(channel).Encode(encode_request(data), timeout=60)


async def test_another_process_finds_in_redis_what_one_has_encoded_also_after_both_restart(
    tmp_path: Path, fresh_redis: RedisServer
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    with EncoderProcess(folders[0], redis_url=fresh_redis.url, redis_timeout_ms=30_000) as first:
        made = await encoded_by(first, png(1))
        assert made.report.place == Place.ENCODED
        assert first.stop() == 0
    with EncoderProcess(folders[1], redis_url=fresh_redis.url, redis_timeout_ms=30_000) as second:
        found = await encoded_by(second, png(1))
        assert found.report.place == Place.REDIS
        assert found.timings.vit_ms == found.timings.decode_image_ms == 0
        assert found.visual_tokens == made.visual_tokens
        assert (await encoded_by(second, png(1))).report.place == Place.MEMORY
        assert second.stop() == 0


def test_a_refusal_to_start_is_one_line_and_a_code(tmp_path: Path) -> None:
    code, printed = refused_start(model=tmp_path)
    assert code != 0
    assert printed == f"vscan-encoder: {tmp_path}: no config.json; a Hugging Face checkpoint directory is needed\n"


def spoiled(folder: Path, spoil: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the checkpoint with another config.json."""
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    spoil(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def without(folder: Path, prefix: str) -> Path:
    """A copy of the checkpoint that lacks some tensors."""
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}, folder / "model.safetensors")
    return folder


def cut(folder: Path) -> Path:
    """A copy of the checkpoint whose weights were not downloaded to the end."""
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    return folder


def unprepared(folder: Path) -> Path:
    """A copy of the checkpoint without preprocessing."""
    shutil.copytree(LLAVA15, folder, dirs_exist_ok=True)
    (folder / "processor_config.json").unlink()
    return folder


BAD_MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no tower": (lambda folder: without(folder, "vision_tower"), r"lacks \d+ tensors of vision_tower"),
    "half a tower": (lambda folder: without(folder, "vision_tower.encoder.layers.3"), r"lacks 16 tensors of vision_tower"),
    "no projector": (
        lambda folder: without(folder, "multi_modal_projector.linear_2"),
        r"lacks the tensor multi_modal_projector.linear_2.weight",
    ),
    "cut weights": (cut, r"its safetensors cannot be read"),
    "no preprocessing": (unprepared, r"no usable preprocessor_config.json or processor_config.json"),
    "several feature layers": (
        lambda folder: spoiled(folder, lambda config: config.update(vision_feature_layer=[-2, -5])),
        r"vision_feature_layer \[-2, -5\]; one layer is served",
    ),
    "CLS as a feature": (
        lambda folder: spoiled(folder, lambda config: config.update(vision_feature_select_strategy="full")),
        r"vision_feature_select_strategy 'full'; only 'default' is served",
    ),
    "a feature layer that is not there": (
        lambda folder: spoiled(folder, lambda config: config.update(vision_feature_layer=-9)),
        r"vision_feature_layer -9 of 8 layers",
    ),
    "another tower": (
        lambda folder: spoiled(folder, lambda config: config["vision_config"].update(model_type="siglip_vision_model")),
        r"vision tower siglip_vision_model is not served here, only CLIP",
    ),
    "another size": (
        lambda folder: spoiled(folder, lambda config: config["text_config"].update(hidden_size=48)),
        r"the projector's tensors do not fit its configuration",
    ),
}


@pytest.mark.parametrize("case", BAD_MODELS)
async def test_a_bad_model_is_told_in_one_line(case: str, tmp_path: Path) -> None:
    make, text = BAD_MODELS[case]
    model = make(tmp_path / "model")
    with pytest.raises(StartupError, match=text) as caught:
        await build(EncoderSettings(**{**PARITY_SETTINGS, "model": model}), Telemetry())
    assert str(caught.value).startswith(str(model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"shallow_layer": 7}, "shallow_layer: 7, limit 0 to 6, the feature layer of llava15"),
        ({"window": 25}, "window: 25, limit 1 to 24, the grid's side of llava15"),
        ({"reduction_tokens_per_tile": 577}, "the default reduction does not fit the model"),
        ({"device": "cuda:77"}, "device: cuda:77 cannot be used here"),
        ({"bind": "0.0.0.0:0"}, "plaintext on 0.0.0.0:0"),
        ({"redis_url": "redis://elsewhere:6379/0"}, "redis_url"),
    ],
)
async def test_a_setting_that_does_not_fit_is_told(setting: dict[str, Any], text: str) -> None:
    with pytest.raises(StartupError) as caught:
        await build(EncoderSettings(**{**PARITY_SETTINGS, **setting}), Telemetry())
    assert str(caught.value).startswith(text)


async def test_a_port_in_use_is_told_before_the_model_is_read(tmp_path: Path) -> None:
    async with running_encoder() as encoder:
        settings = EncoderSettings(**{**PARITY_SETTINGS, "bind": encoder.address, "model": tmp_path / "nothing"})
        with pytest.raises(StartupError, match=rf"cannot listen on {encoder.address}"):
            await build(settings, Telemetry())


@pytest.mark.parametrize("death", [SystemExit(1), torch.AcceleratorError("an illegal memory access was encountered")])
async def test_a_dead_worker_or_device_makes_the_service_not_ready_and_ends_it(
    monkeypatch: pytest.MonkeyPatch, death: BaseException
) -> None:
    async with running_encoder(drain_seconds=60) as encoder:
        assert await health(encoder.channel) == SERVING
        waiting = asyncio.create_task(encoder.service.wait())
        watch = health_pb2_grpc.HealthStub(encoder.channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await watch.read()).status == SERVING

        def die(*_: object) -> None:
            raise death

        monkeypatch.setattr(encoder.service._pipeline._model, "look", die)
        error = await encoder.refusal(encoder.encode(png(1)))
        assert isinstance(error, InternalError)
        assert (await watch.read()).status == NOT_SERVING
        with pytest.raises(InternalError, match="the device worker has died"):
            await waiting


async def test_stopping_answers_who_waits() -> None:
    async with running_encoder(max_batch_tiles=2, batch_wait_ms=3_600_000, drain_seconds=0) as encoder:
        call = asyncio.create_task(encoder.refusal(encoder.encode(png(1))))
        await until(lambda: len(encoder.service._pipeline._images.room) == 1)
        await encoder.service.stop()
        assert isinstance(await call, Unavailable)
