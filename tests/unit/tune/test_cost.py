"""The count of operations against the paper's figures, and against a real answer's counts."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from embedded_model import checkpoint_dir
from studies.tune.cost import LanguageShape
from tests.support.decoder import PARITY_CHECKPOINT

VICUNA_7B = LanguageShape(layers=32, width=4096, mlp_width=11008, heads=32, kv_heads=32, head_width=128)


@pytest.mark.parametrize(
    ("tokens", "pruned", "teraflops"),
    [
        (576, [], 3.817),  # LLaVA-1.5-7B
        (96, [(16, 32)], 0.415),  # at 11.1 %
        (2880, [], 20.8),  # LLaVA-NeXT-7B
        (480, [(16, 160)], 2.10),
    ],
)
def test_the_papers_figures(tokens: int, pruned: list[tuple[int, int]], teraflops: float) -> None:
    assert VICUNA_7B.prefill_flops(tokens, pruned) / 1e12 == pytest.approx(teraflops, rel=0.005)


def test_shared_keys_cost_less_and_what_is_dropped_costs_nothing() -> None:
    shared = LanguageShape(layers=32, width=4096, mlp_width=11008, heads=32, kv_heads=8, head_width=128)
    assert VICUNA_7B.layer_flops(1) - shared.layer_flops(1) == 2 * 4096 * 24 * 128
    assert VICUNA_7B.prefill_flops(96, [(16, 0)]) == 16 * VICUNA_7B.layer_flops(96)
    assert VICUNA_7B.prefill_flops(96, [(8, 48), (24, 24)]) == (
        8 * VICUNA_7B.layer_flops(96) + 16 * VICUNA_7B.layer_flops(48) + 8 * VICUNA_7B.layer_flops(24)
    )


@pytest.mark.parametrize("directory", [checkpoint_dir(), PARITY_CHECKPOINT], ids=["embedded", "parity"])
def test_a_checkpoints_shape_is_its_language_models(directory: Path) -> None:
    shape = LanguageShape.of_checkpoint(directory)
    assert shape.layers > 0
    assert shape.heads * shape.head_width == shape.width


def test_a_configuration_may_leave_out_what_follows_from_the_rest() -> None:
    text = SimpleNamespace(num_hidden_layers=2, hidden_size=64, intermediate_size=128, num_attention_heads=4)
    assert LanguageShape.of_config(text) == LanguageShape(layers=2, width=64, mlp_width=128, heads=4, kv_heads=4, head_width=16)
