"""One prompt through the language model, watched on the way.

Layers, rotary embeddings, positions and the attention kernel are those that are served; nothing is pruned. All rows run through
the fused kernel, and only the last row's attention is computed apart, so that no layer holds rows x rows numbers for its heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from decoder_service.language.base import LanguageModel
from decoder_service.pruning import attention_scores
from decoder_service.request import Prompt
from decoder_service.runner import sdpa
from vscan.transfer import to_device


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
    """Every layer of `model` over the whole prompt, in order. The first layer enters with the embeddings."""
    places = to_device(model.prompt_positions(prompt).places, model.device)
    yield from walk_rows(model, model.prompt_rows(prompt), places)


@torch.inference_mode()
def walk_rows(model: LanguageModel, rows: torch.Tensor, places: torch.Tensor, first_layer: int = 0) -> Iterator[LayerView]:
    """The layers from `first_layer` on, over rows [rows, hidden] that stand at `places`, as `Positions` has them."""
    rope = model.rope(rows[None], places)
    for number, layer in enumerate(model.layers[first_layer:], start=first_layer):
        watch = _Watch()
        leaving = layer(rows[None], attention_mask=None, position_embeddings=rope, plan=watch)[0]
        yield LayerView(number, rows, leaving, watch.last_row)
        rows = leaving


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
