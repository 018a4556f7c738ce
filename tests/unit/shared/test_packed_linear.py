from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from vscan import packed_linear
from vscan.packed_linear import PackedLinear, faster_packed, packed

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="this torch has no oneDNN",
)


def linear(*, bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(48, 80, bias=bias, dtype=dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (1, 300, 48), (0, 48)])
def test_it_computes_what_the_layer_did(bias: bool, shape: tuple[int, ...]) -> None:
    layer = linear(bias=bias)
    rows = torch.randn(shape)
    expected = layer(rows)
    torch.testing.assert_close(packed(layer)(rows), expected, atol=1e-5, rtol=1e-5)


def test_rows_that_do_not_follow_each_other_are_read_as_they_are() -> None:
    layer, rows = linear(), torch.randn(48, 5).t()
    expected = layer(rows)
    torch.testing.assert_close(packed(layer)(rows), expected, atol=1e-5, rtol=1e-5)


def test_every_linear_layer_of_a_module_is_packed() -> None:
    module = nn.Sequential(linear(), nn.SiLU(), nn.ModuleDict({"head": nn.Linear(80, 16)}))
    assert packed(module) is module
    kinds = [type(child) for child in module.modules() if not list(child.children())]
    assert kinds == [PackedLinear, nn.SiLU, PackedLinear]


def test_a_weight_that_is_tied_stays_with_its_other_owner() -> None:
    embedding = nn.Embedding(80, 48)
    layer = nn.Linear(48, 80, bias=False)
    layer.weight = embedding.weight
    rows = torch.randn(3, 48)
    torch.testing.assert_close(packed(layer)(rows), functional.linear(rows, embedding.weight), atol=1e-5, rtol=1e-5)
    assert layer.weight is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay_as_they_are(dtype: torch.dtype) -> None:
    layer = linear(dtype=dtype)
    assert packed(layer) is layer


@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_says_its_weights_as_they_were(bias: bool) -> None:
    module = nn.ModuleDict({"one": linear(bias=bias)})
    expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = packed(module).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_layers_that_are_not_worth_it_stay_as_they_are() -> None:
    module = nn.Sequential(linear(), nn.Sequential(nn.Linear(80, 16)))
    packed(module, lambda layer: layer.out_features == 16)
    assert type(module[0]) is nn.Linear
    assert type(module[1][0]) is PackedLinear  # type: ignore[index]


def test_one_layer_of_each_shape_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def trial(layer: nn.Linear, rows: int) -> bool:
        tried.append((layer.in_features, rows))
        return layer.in_features == 1024

    monkeypatch.setattr(packed_linear, "_is_faster_packed", trial)
    worth = faster_packed(577)
    shapes = [(1024, 512), (512, 1024), (1024, 512), (512, 1024), (48, 80)]
    assert [worth(nn.Linear(*shape)) for shape in shapes] == [True, False, True, False, True]
    assert tried == [(1024, 577), (512, 577)], "small layers are packed untried"


def test_a_trial_leaves_its_layer_as_it_was() -> None:
    layer = nn.Linear(512, 512).requires_grad_(False)
    before = layer.weight.clone()
    assert faster_packed(8)(layer) in (True, False)
    assert torch.equal(layer.weight, before)
