"""What cannot work refuses to start, in one line that says what; what can starts and ends in order."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.decoder import PARITY_CHECKPOINT, in_process_decoder
from tests.support.service_process import ServiceProcess, health_of
from vscan.errors import StartupError

NOWHERE = "127.0.0.1:1"


def checkpoint_without(folder: Path, prefix: str) -> Path:
    copy = shutil.copytree(PARITY_CHECKPOINT, folder / "copy")
    weights = copy / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if not name.startswith(prefix)}
    assert len(kept) < len(load_file(weights))
    save_file(kept, weights, metadata={"format": "pt"})
    return copy


async def refusal(**settings: Any) -> str:
    with pytest.raises(StartupError) as refused:
        async with in_process_decoder(NOWHERE, ready=False, **settings):
            pass
    assert "\n" not in refused.value.message
    return refused.value.message


async def test_a_bad_model_is_named(tmp_path: Path) -> None:
    assert "no config.json" in await refusal(model=tmp_path)


async def test_half_a_checkpoint_is_named(tmp_path: Path) -> None:
    message = await refusal(model=checkpoint_without(tmp_path, "language_model.model.layers.3"))
    assert "lacks" in message
    assert "layers.3" in message


async def test_the_encoders_half_is_not_needed(tmp_path: Path) -> None:
    async with in_process_decoder(NOWHERE, ready=False, model=checkpoint_without(tmp_path, "vision_tower")) as decoder:
        assert "model" not in decoder.readiness.why_not


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in await refusal(bind=address)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prune_layers": (6,)}, "prune_layers: 6, but the model's last layer is 5"),
        ({"max_context_tokens": 5000}, "max_context_tokens: 5000, but the model has 4096 positions"),
        ({"device": "cuda:77"}, "device: cuda:77 cannot be used here"),
        ({"bind": "0.0.0.0:0"}, "plaintext on 0.0.0.0:0"),
        ({"redis_url": "redis://10.0.0.1/0"}, "Redis beyond loopback, Sentinels and Clusters need cache_secret_file"),
    ],
)
async def test_a_setting_that_cannot_work_is_named(settings: dict[str, Any], words: str) -> None:
    assert words in await refusal(**settings)


async def test_plaintext_to_an_encoder_elsewhere_must_be_asked_for() -> None:
    with pytest.raises(StartupError, match=r"^encoder_address: 10\.0\.0\.1:7071 is beyond this machine"):
        async with in_process_decoder("10.0.0.1:7071", ready=False):
            pass
    async with in_process_decoder("10.0.0.1:7071", ready=False, encoder_insecure=True) as decoder:
        assert "encoder" in decoder.readiness.why_not


def test_the_program_refuses_in_one_line_and_ends_non_zero() -> None:
    variables = {"VSCAN_DECODER_MODEL": "/nowhere", "VSCAN_DECODER_BIND": "127.0.0.1:0", "VSCAN_DECODER_LOG_LEVEL": "error"}
    run = subprocess.run(
        [sys.executable, "-m", "decoder_service"], env=os.environ | variables, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    assert run.stderr.splitlines() == ["vscan-decoder: /nowhere: no config.json; a Hugging Face checkpoint directory is needed"]


def test_the_program_says_why_it_is_not_ready_and_ends_in_order(tmp_path: Path) -> None:
    process = ServiceProcess("decoder", tmp_path, {"model": PARITY_CHECKPOINT, "redis_url": "", "encoder_address": NOWHERE})
    process.start()
    try:
        process.wait_until(lambda: "being loaded" not in health_of(process.address, "vscan.v1.Decoder")[1], "load its model")
        serving, why = health_of(process.address, "vscan.v1.Decoder")
        assert not serving
        assert "the encoder has not been reached yet" in why
    finally:
        assert process.stop() == 0


@pytest.mark.parametrize("block_rows", [1, 16, 256])
async def test_a_cache_too_small_for_anything_is_told_what_would_do(block_rows: int) -> None:
    message = await refusal(kv_cache_bytes=1, kv_block_rows=block_rows)
    told = re.fullmatch(rf"kv_cache_bytes: 1, but blocks of {block_rows} rows need at least (\d+) here", message)
    assert told is not None
    least = int(told[1])
    assert "kv_cache_bytes" in await refusal(kv_cache_bytes=least - 1, kv_block_rows=block_rows)
    async with in_process_decoder(NOWHERE, ready=False, kv_cache_bytes=least, kv_block_rows=block_rows) as decoder:
        assert "model" not in decoder.readiness.why_not
