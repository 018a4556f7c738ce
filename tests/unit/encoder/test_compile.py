"""Layers that torch traces give what others give. Not compiled, which takes minutes: `eager` runs what was traced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from encoder_service.config import EncoderSettings
from encoder_service.wiring import build
from tests.support.encoder import PARITY, PARITY_SETTINGS
from tests.support.vision import load, pixels, prepared, shared_model
from vscan.errors import StartupError
from vscan.telemetry.providers import Telemetry


@pytest.fixture
def fresh_tracer() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@torch.inference_mode()
def test_traced_layers_give_what_others_give(fresh_tracer: None) -> None:
    model = load()
    model.compile(backend="eager")
    for tiles in (1, 3):
        image = prepared(model, pixels(model, tiles, seed=tiles))
        seen, expected = model.look([image]), shared_model().look([image])
        torch.testing.assert_close(seen.features, expected.features, rtol=0, atol=1e-4)
        torch.testing.assert_close(seen.scores.deep, expected.scores.deep, rtol=1e-4, atol=1e-7)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0


def test_what_cannot_be_compiled_is_told_at_the_start(fresh_tracer: None) -> None:
    with pytest.raises(StartupError, match=r"^compile: \w+: .*no_such_backend"):
        load().compile(backend="no_such_backend")


def test_a_family_whose_passes_differ_is_not_compiled() -> None:
    with pytest.raises(StartupError, match="compile: qwen2_5_vl"):
        load(PARITY / "qwen25vl", shallow_layer=None, window=None, video_max_tokens=None).compile()


async def test_on_a_cpu_nothing_is_compiled(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="compile: on a GPU only"):
        await build(EncoderSettings(**{**PARITY_SETTINGS, "compile": True}), Telemetry())
