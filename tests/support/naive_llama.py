"""Stage 2 written out: one sequence, every step from the beginning, no cache, loops where loops are plainest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from decoder_service.language.base import LanguageModel
from decoder_service.request import EngineRequest
from vscan.specs import KeepTokens, PositionPolicy, Rater


@dataclass
class NaiveAnswer:
    ids: list[int]
    logprobs: list[torch.Tensor]  # of each step, [vocabulary]
    survivors: dict[int, list[int]]  # layer → rows of the prompt that hold surviving visual tokens
    rows: list[int]  # rows of the prompt in each run of layers


def naive_generate(model: LanguageModel, request: EngineRequest) -> NaiveAnswer:
    """Greedy. The ranking sees the prompt alone, so what it keeps is the same in every step."""
    answer = NaiveAnswer([], [], {}, [])
    for _ in range(request.sampling.max_new_tokens):
        logits = _forward(model, request, answer)
        answer.logprobs.append(logits.log_softmax(dim=0))
        answer.ids.append(int(logits.argmax()))
    return answer


def _forward(model: LanguageModel, request: EngineRequest, answer: NaiveAnswer) -> torch.Tensor:
    prompt_rows = request.prompt.rows
    visual = {row: span.image for span in request.prompt.spans for row in range(span.start, span.start + span.count)}
    rows = list(range(prompt_rows + len(answer.ids)))  # numbers ≥ prompt_rows are generated tokens
    positions = list(rows)
    hidden = torch.cat([model.prompt_rows(request.prompt), *([model.embed(answer.ids)] if answer.ids else [])])
    answer.rows = []
    for index, layer in enumerate(model.layers):
        if index in request.pruning.layers and any(row in visual for row in rows):
            answer.rows.append(sum(row < prompt_rows for row in rows))
            kept = _kept(model, layer, index, request, hidden, rows, positions, visual)
            stay = [place for place, row in enumerate(rows) if row not in visual or row in kept]
            answer.survivors[index] = sorted(kept)
            hidden, rows = hidden[stay], [rows[place] for place in stay]
            renumber = request.pruning.positions is PositionPolicy.RENUMBER
            positions = list(range(len(rows))) if renumber else [positions[place] for place in stay]
        hidden = _layer(model, layer, hidden, positions)
    answer.rows.append(sum(row < prompt_rows for row in rows))
    return model.logits(hidden[-1:])[0]


def _kept(
    model: LanguageModel,
    layer: Any,
    index: int,
    request: EngineRequest,
    hidden: torch.Tensor,
    rows: list[int],
    positions: list[int],
    visual: dict[int, int],
) -> set[int]:
    pruning = request.pruning
    columns = [place for place, row in enumerate(rows) if row in visual]
    if pruning.rater is Rater.DROP_ALL:
        return set()
    prompt = [place for place, row in enumerate(rows) if row < request.prompt.rows]
    asking = [len(prompt) - 1]
    if pruning.rater is Rater.TEXT_MEAN:
        asking = [place for place in prompt if rows[place] not in visual and place > columns[0]]
    scores = dict.fromkeys(columns, 0.0)
    weights = _weights(model, layer, hidden[: len(prompt)], positions[: len(prompt)])  # [heads, rows, rows]
    for row in asking:
        for column in columns:
            scores[column] += float(weights[:, row, column].mean())
    budget = pruning.budgets[pruning.layers.index(index)]
    count = budget.count if isinstance(budget, KeepTokens) else int(budget.fraction * len(columns) + 1e-9)
    ranked = sorted(columns, key=lambda column: (-scores[column], column))
    firsts: Callable[[int], int] = lambda image: next(c for c in ranked if visual[rows[c]] == image)  # noqa: E731
    chosen = [firsts(image) for image in sorted({visual[rows[column]] for column in columns})]
    chosen += [column for column in ranked if column not in chosen][: max(0, count - len(chosen))]
    return {rows[column] for column in chosen}


def _layer(model: LanguageModel, layer: Any, hidden: torch.Tensor, positions: list[int]) -> torch.Tensor:
    weights = _weights(model, layer, hidden, positions)
    values = _split(model, layer.self_attn.v_proj(layer.input_layernorm(hidden)))
    values = values.repeat_interleave(weights.shape[0] // values.shape[0], dim=0)
    attended = (weights @ values).transpose(0, 1).reshape(hidden.shape[0], -1)
    hidden = hidden + layer.self_attn.o_proj(attended)
    result: torch.Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return result


def _weights(model: LanguageModel, layer: Any, hidden: torch.Tensor, positions: list[int]) -> torch.Tensor:
    normed = layer.input_layernorm(hidden)
    queries = _rotated(_split(model, layer.self_attn.q_proj(normed)), positions)
    keys = _rotated(_split(model, layer.self_attn.k_proj(normed)), positions)
    keys = keys.repeat_interleave(queries.shape[0] // keys.shape[0], dim=0)
    logits = queries @ keys.transpose(1, 2) / model.shape.head_dim**0.5
    later = torch.ones(logits.shape[1:], dtype=torch.bool).triu(1)
    weights: torch.Tensor = logits.masked_fill(later, float("-inf")).softmax(dim=-1)
    return weights


def _split(model: LanguageModel, projected: torch.Tensor) -> torch.Tensor:
    return projected.view(projected.shape[0], -1, model.shape.head_dim).transpose(0, 1)


def _rotated(vectors: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """Pairs (i, i + half) turned by position x 10000^(-i / half)."""
    half = vectors.shape[-1] // 2
    speeds = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.tensor(positions, dtype=torch.float64)[:, None] * speeds
    cos, sin = angles.cos().to(vectors.dtype), angles.sin().to(vectors.dtype)
    first, second = vectors[..., :half], vectors[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
