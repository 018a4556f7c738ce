"""What a question costs, by counting.

The paper's count of a prefill (arXiv 2505.22654, section 4.3; the formula is that of FastV, arXiv 2403.06764, section 4.1, with
the three matrices of a gated MLP) takes the visual tokens alone and a multiplication with its addition as one operation:

    a layer that n visual tokens pass      4 n d² + 2 n² d + 3 n d m        d: width, m: width of the MLP

LLaVA-1.5-7B (32 layers, d 4096, m 11008) with 576 tokens in every layer: 3.817 T; with 96 in 16 layers and 32 in 16: 0.416 T.
Where keys and values have fewer heads than queries, 4 n d² becomes 2 n d (heads + kv heads) head_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from vscan_client.answer import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageShape:
    """Sizes of a language model of gated MLPs, as all served families have it."""

    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_width: int

    @classmethod
    def of_checkpoint(cls, directory: Path) -> Self:
        """As config.json says, with transformers' defaults for what it leaves out. Raises CheckpointError."""
        from vscan.checkpoint import Checkpoint

        return cls.of_config(Checkpoint.open(directory).config.get_text_config())

    @classmethod
    def of_config(cls, text: Any) -> Self:
        """Of a language model's configuration."""
        heads = text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            width=text.hidden_size,
            mlp_width=text.intermediate_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_width=getattr(text, "head_dim", None) or text.hidden_size // heads,
        )

    def layer_flops(self, tokens: float) -> float:
        """Of one layer that so many visual tokens pass; a multiplication with its addition counts as one."""
        queries, keys = self.heads * self.head_width, self.kv_heads * self.head_width
        projections = 2 * tokens * self.width * (queries + keys)
        return projections + 2 * tokens**2 * queries + 3 * tokens * self.width * self.mlp_width

    def prefill_flops(self, visual_tokens: int, pruned: Sequence[tuple[int, int]] = ()) -> float:
        """Of a prefill of so many visual tokens; `pruned`: (layer, tokens left from it on), layers ascending."""
        bounds = (0, *(layer for layer, _ in pruned), self.layers)
        counts = (visual_tokens, *(left for _, left in pruned))
        return sum((high - low) * self.layer_flops(n) for n, (low, high) in zip(counts, pairwise(bounds), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one question, or the mean of several."""

    visual_stage_1: float  # visual tokens after stage 1
    visual_last: float  # past the last pruning layer
    visual_average: float  # over the layers
    kv_rows_average: float  # rows of the KV cache that the prompt takes, visual and text, over the layers
    prefill_flops: float

    @classmethod
    def of(cls, answer: Answer, shape: LanguageShape) -> Self:
        """As the decoder reported it."""
        usage = answer.usage
        pruned = [(report.layer, report.tokens_after) for report in answer.pruning]
        return cls(
            visual_stage_1=usage.visual_tokens,
            visual_last=pruned[-1][1] if pruned else usage.visual_tokens,
            visual_average=usage.visual_tokens_average,
            kv_rows_average=usage.prompt_tokens - usage.visual_tokens + usage.visual_tokens_average,
            prefill_flops=shape.prefill_flops(usage.visual_tokens, pruned),
        )

    @classmethod
    def mean(cls, costs: Sequence[Cost]) -> Self:
        """Field by field."""
        names = ("visual_stage_1", "visual_last", "visual_average", "kv_rows_average", "prefill_flops")
        return cls(**{name: sum(getattr(cost, name) for cost in costs) / len(costs) for name in names})
