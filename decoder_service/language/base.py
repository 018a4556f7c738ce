"""What the runner needs of a language model, and what a family may say differently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from decoder_service.kv_cache.segments import KvShape, Segment
from decoder_service.language.tokens import SpecialTokens
from decoder_service.request import Prompt
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError
from vscan.packed_linear import packed
from vscan.specs import PositionPolicy
from vscan.transfer import to_device

if TYPE_CHECKING:
    from decoder_service.runner.attention import AttentionPlan
    from decoder_service.runner.decode_graph import FixedPlan

# cos and sin, each [1, rows, head_dim]
Rope = tuple[torch.Tensor, torch.Tensor]
# These scale with the longest sequence seen, which a packed step does not have.
_UNPACKABLE_ROPE = {"dynamic", "longrope"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """The sizes of a language model."""

    layers: int
    hidden_size: int
    vocab_size: int
    kv_heads: int
    head_dim: int
    max_context_tokens: int


@dataclass(frozen=True, slots=True)
class Family:
    """One file of this package: the `model_type` of config.json, and how to load its language model.

    `load(checkpoint, dtype=…, device=…)` raises CheckpointError when the half is missing or of a kind that is not served.
    """

    model_type: str
    load: Callable[..., LanguageModel]


@dataclass(frozen=True, slots=True)
class Positions:
    """Where rows of one sequence stand.

    rows      s s v v v q
    places    0 1 2 3 4 5        next 6
    """

    places: torch.Tensor  # [rows] or [axes, rows], int64 on the CPU
    next: int  # of the row that will follow, on every axis

    def only(self, rows: torch.Tensor) -> Positions:
        """Of these rows alone; what follows stays where it would have been."""
        return Positions(self.places[..., rows], self.next)


class LanguageModel:
    """A transformers causal language model whose layers the runner walks one by one. It takes `model` over: on a CPU its linear
    layers are packed.

    The defaults below fit Llama and models like it; a family overrides what differs.
    """

    default_positions: ClassVar[PositionPolicy] = PositionPolicy.RENUMBER
    rope_in_scores: ClassVar[bool] = True

    def __init__(self, model: Any, *, family: str, shape: LanguageShape, tokens: SpecialTokens) -> None:
        self.family = family
        self.shape = shape
        self.tokens = tokens
        self._decoder: Any = packed(model.model)
        self._lm_head: Any = packed(model.lm_head)
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device

    @property
    def takes_videos(self) -> bool:
        """Whether prompts may have a video."""
        return self.tokens.video_placeholder_id is not None

    @property
    def layers(self) -> Sequence[Any]:
        """The layers, in order; called as `layer(hidden, attention_mask=None, position_embeddings=rope, plan=plan)`."""
        layers: Sequence[Any] = self._decoder.layers
        return layers

    def compile(self, backend: str = "inductor") -> None:
        """Has all layers but the last compiled (torch.compile) when they are first run, for any number of rows.

        They are launched in far fewer pieces so: with few rows a GPU waits for Python. The last one runs in parts.
        """
        for layer in self.layers[:-1]:
            layer.compile(dynamic=True, backend=backend)

    @property
    def kv_shape(self) -> KvShape:
        """What a row takes in one layer."""
        return KvShape(self.shape.kv_heads, self.shape.head_dim, self.shape.hidden_size, self.dtype.itemsize)

    def embed(self, token_ids: Sequence[int]) -> torch.Tensor:
        """Embeddings of text tokens, [rows, hidden]."""
        return self.embed_ids(to_device(torch.tensor(token_ids, dtype=torch.int64), self.device))

    def embed_ids(self, ids: torch.Tensor) -> torch.Tensor:
        """The same for ids on the device, [rows], int64."""
        rows: torch.Tensor = self._decoder.embed_tokens(ids)
        return rows

    def prompt_rows(self, prompt: Prompt) -> torch.Tensor:
        """Text embeddings with the visual tokens laid into their rows, [rows, hidden].

        ids       s s s ▢ ▢ ▢ q      the placeholder ▢ may lie outside the vocabulary: it is never embedded
        rows      e e e v v v e
        """
        return self.rows_of(prompt, prompt.token_ids, 0, prompt.rows)

    def rows_of(self, prompt: Prompt, ids: Sequence[int], start: int, end: int) -> torch.Tensor:
        """Rows `start` to `end` of a prompt and its answer so far, [end - start, hidden]; `ids` are those of all rows."""
        text, laid = list(ids[start:end]), []
        for span in prompt.spans:
            low, high = max(start, span.start), min(end, span.start + span.count)
            if low < high:
                laid.append((low, high, prompt.images[span.image].tokens[low - span.start : high - span.start]))
                text[low - start : high - start] = [0] * (high - low)
        rows = self.embed(text)
        for low, high, tokens in laid:
            rows[low - start : high - start] = to_device(tokens, self.device)
        return rows

    def positions_taken(self, prompt: Prompt) -> int:
        """Positions up to where the answer begins. Raises InvalidArgument for what the family cannot lay out."""
        return self.prompt_positions(prompt).next

    def prompt_positions(self, prompt: Prompt) -> Positions:
        """Of the prompt's rows, before any pruning. Raises as `positions_taken`."""
        return self.text_positions(0, prompt.rows)

    def text_positions(self, start: int, count: int) -> Positions:
        """Of `count` rows that stand one after the other: text, generated rows, and all rows once they are re-numbered."""
        return Positions(self.on_all_axes(torch.arange(start, start + count)), start + count)

    def on_all_axes(self, places: torch.Tensor) -> torch.Tensor:
        """Of text at these places, [rows], as `Positions.places` are."""
        return places

    def rope(self, hidden: torch.Tensor, places: torch.Tensor) -> Rope:
        """Rotary embeddings at `Positions.places`, in the dtype and on the device of `hidden` [1, rows, hidden]."""
        cos, sin = self._decoder.rotary_emb(hidden, places[None])
        return cos, sin

    def score_projections(
        self, layer: int, rows: torch.Tensor, query_rows: torch.Tensor, rope: Rope
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The queries and keys with which `layer` would attend, for ranking.

        Args:
            rows: the layer's input, [rows, hidden].
            query_rows: which rows ask, [m], int64 on the device.
            rope: of all rows, at their positions before the pruning.

        Returns:
            queries [heads, m, head_dim], keys [kv heads, rows, head_dim], and the layer's scaling.
        """
        block = self.layers[layer]
        normed = block.input_layernorm(rows)
        keys = _heads(block.self_attn.k_proj(normed), self.shape.head_dim)
        queries = _heads(block.self_attn.q_proj(normed[query_rows]), self.shape.head_dim)
        if self.rope_in_scores:
            cos, sin = rope[0][0], rope[1][0]
            keys = _rotate(keys, cos, sin)
            queries = _rotate(queries, cos[query_rows], sin[query_rows])
        return queries, keys, float(block.self_attn.scaling)

    def walk(
        self, segment: Segment, hidden: torch.Tensor, places: torch.Tensor, plan: AttentionPlan | FixedPlan, *, last: bool
    ) -> torch.Tensor:
        """Runs rows [rows, hidden] at `places` through a segment's layers; of the last one only `plan.last_rows` come back."""
        packed, rope = hidden[None], self.rope(hidden[None], places)
        for layer in self.layers[segment.first_layer : segment.end_layer - last]:
            packed = layer(packed, attention_mask=None, position_embeddings=rope, plan=plan)
        return self.last_layer(packed, rope, plan) if last else packed[0]

    def last_layer(self, hidden: torch.Tensor, rope: Rope, plan: AttentionPlan | FixedPlan) -> torch.Tensor:
        """The last layer, for `plan.last_rows` alone: other rows give it their keys and values, and nobody reads more of them.

        Args:
            hidden: its input, [1, rows, hidden].
            rope: of all rows.

        Returns:
            [rows asked for, hidden].
        """
        layer, asked = self.layers[-1], plan.last_rows()
        rows, cos, sin = hidden[0], rope[0][0], rope[1][0]
        if cos.dim() != rows.dim():  # a family that mixes its axes in the attention of each layer
            whole: torch.Tensor = layer(hidden, attention_mask=None, position_embeddings=rope, plan=plan)
            return whole[0, asked]
        normed, attention, size = layer.input_layernorm(rows), layer.self_attn, self.shape.head_dim
        queries = _rotate(_heads(attention.q_proj(normed[asked]), size), cos[asked], sin[asked])
        keys = _rotate(_heads(attention.k_proj(normed), size), cos, sin)
        values = _heads(attention.v_proj(normed), size)
        attended = plan.attend(attention.layer_idx, queries, keys, values, attention.scaling, last_rows_only=True)
        last: torch.Tensor = rows[asked] + attention.o_proj(attended.flatten(1))
        done: torch.Tensor = last + layer.mlp(layer.post_attention_layernorm(last))
        return done

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The final norm and the head, [rows, hidden] → [rows, vocabulary]."""
        logits: torch.Tensor = self._lm_head(self._decoder.norm(hidden))
        return logits


def shape_of(text_config: Any) -> LanguageShape:
    """The sizes that a text configuration states."""
    heads = text_config.num_attention_heads
    window = getattr(text_config, "sliding_window", None)
    context = int(text_config.max_position_embeddings)
    return LanguageShape(
        layers=text_config.num_hidden_layers,
        hidden_size=text_config.hidden_size,
        vocab_size=text_config.vocab_size,
        kv_heads=getattr(text_config, "num_key_value_heads", None) or heads,
        head_dim=getattr(text_config, "head_dim", None) or text_config.hidden_size // heads,
        # Within the window, sliding attention is full attention; beyond it the runner would be wrong.
        max_context_tokens=min(context, window) if window else context,
    )


def refuse_unpackable_rope(checkpoint: Checkpoint, text_config: Any) -> None:
    """Raises CheckpointError for rotary embeddings that the runner's packed steps would get wrong."""
    rope = (getattr(text_config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in _UNPACKABLE_ROPE:
        raise CheckpointError(f"{checkpoint.directory}: rotary embedding {rope} is not served")


def _heads(projected: torch.Tensor, head_dim: int) -> torch.Tensor:
    """[rows, heads * head_dim] → [heads, rows, head_dim]."""
    return projected.view(projected.shape[0], projected.shape[1] // head_dim, head_dim).transpose(0, 1)


def _rotate(vectors: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding in halves, as transformers has it: vectors [heads, rows, head_dim], cos and sin [rows, head_dim]."""
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cos + torch.cat((-second, first), dim=-1) * sin
