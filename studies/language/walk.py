"""One prompt through the language model, watched on the way.

Layers, rotary embeddings and positions are those that are served, and the attention is the one that the decoder has on a CPU;
nothing is pruned. All rows run through the fused kernel, and only the last row's attention is computed apart, so that no layer
holds rows x rows numbers for its heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from decoder_service.language.base import LanguageModel
from decoder_service.pruning import attention_scores
from decoder_service.request import Prompt
from decoder_service.runner import sdpa
from studies.finite import check_finite
from vscan.transfer import to_device

# Rows that sequences side by side take through a layer at a time: bounds what its feed-forward half holds.
_MOST_ROWS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class LayerView:
    """What one layer did with a prompt."""

    layer: int  # from 0
    entering: torch.Tensor  # [rows, hidden], on the device
    leaving: torch.Tensor  # the same, after the layer
    # How much the prompt's last row attends to each row, mean over heads, [rows], float32 on the CPU; they sum to 1.
    attention: torch.Tensor


@torch.inference_mode()
def walk(model: LanguageModel, prompt: Prompt) -> Iterator[LayerView]:
    """Every layer of `model` over the whole prompt, in order. The first layer enters with the embeddings.

    Raises:
        InvalidArgument: the model's numbers overflow.
    """
    places = to_device(model.prompt_positions(prompt).places, model.device)
    rows = model.prompt_rows(prompt)
    rope = model.rope(rows[None], places)
    for number, layer in enumerate(model.layers):
        watch = _Watch()
        leaving = layer(rows[None], attention_mask=None, position_embeddings=rope, plan=watch)[0]
        check_finite(watch.last_row, f"the attention of layer {number} of the language model", rows.dtype)
        yield LayerView(number, rows, leaving, watch.last_row)
        rows = leaving


@torch.inference_mode()
def side_by_side(model: LanguageModel, layer: int, rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Sequences of equal length through one layer, each as if alone: [sequences, rows, hidden] → the same.

    The layer's weights are read once for all of them, or for so many as hold `_MOST_ROWS`.

    Args:
        places: of the rows of each, as `Positions` has them, on the device.
    """
    length = rows.shape[1]
    left = []
    for some in torch.split(rows, max(1, _MOST_ROWS // length)):
        packed = some.flatten(0, 1)[None]
        rope = model.rope(packed, torch.cat([places] * len(some), dim=-1))
        plan = _Apart(length)
        left.append(model.layers[layer](packed, attention_mask=None, position_embeddings=rope, plan=plan).view_as(some))
    return torch.cat(left)


class _Watch:
    """Stands where the runner's plan stands: attends over the prompt alone, and keeps what its last row attends to."""

    last_row: torch.Tensor

    def attend(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Queries [heads, rows, head_dim], keys and values [kv heads, rows, head_dim], rotated → [rows, heads, head_dim]."""
        rows = queries.shape[1]
        every = torch.arange(rows, device=queries.device)
        scores = attention_scores(queries[:, -1:], keys, query_rows=every[-1:], visual_rows=every, scaling=scaling)
        self.last_row = scores.cpu()
        return sdpa.attend(queries, keys, values, [(0, rows)], scaling, None).transpose(0, 1)


class _Apart:
    """Stands there too: sequences of one length lie behind each other, and each attends to itself."""

    def __init__(self, length: int) -> None:
        self._length = length

    def attend(
        self, layer: int, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """As `_Watch.attend`."""
        length = self._length
        own = [
            sdpa.attend(queries[:, start : start + length], keys, values, [(start, length)], scaling, None)
            for start in range(0, queries.shape[1], length)
        ]
        return torch.cat(own, dim=1).transpose(0, 1)
