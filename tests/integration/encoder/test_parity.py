"""What comes over gRPC is what the authors' released code computes: kept sets exactly, visual tokens within 1e-3."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.encoder import PARITY, running_encoder, tokens_per_tile
from vscan.v1 import encoder_pb2
from vscan.visual_tokens import PickedBy, VisualTokens

CASES = ["llava15_96_32", "llava15_192_64", "llava15_full"]


@pytest.mark.parametrize("case", CASES)
async def test_the_released_code_keeps_the_same_and_computes_the_same(case: str) -> None:
    stated: dict[str, Any] = json.loads((PARITY / "expected" / f"{case}.json").read_text())
    expected = load_file(PARITY / "expected" / f"{case}.safetensors")
    budget = stated["visual_tokens_per_tile"]
    settings = {name: stated[name] for name in ("shallow_layer", "window", "dtype")}
    async with running_encoder(**settings) as encoder:
        described = await encoder.stub.Describe(encoder_pb2.DescribeEncoderRequest())
        assert described.defaults.deep_layer == stated["deep_layer"]
        response = await encoder.encode((PARITY / stated["image"]).read_bytes(), budget=tokens_per_tile(budget))
    value = VisualTokens.from_proto(response.visual_tokens)
    mask = torch.zeros(expected["kept_mask"].shape[1], dtype=torch.int64)
    mask[value.kept_indices] = 1
    assert torch.equal(mask, expected["kept_mask"][0])
    torch.testing.assert_close(value.tokens, expected["visual_tokens"], rtol=0, atol=1e-3)
    scans = torch.bincount(value.picked_by.to(torch.int64), minlength=6)
    if budget < value.unreduced_count:
        assert scans[PickedBy.LOCAL] == scans[PickedBy.GLOBAL] == budget // 2
    else:
        assert scans[PickedBy.ALL] == budget
