"""Qwen2.5-VL: every row has a place on three axes (time, height, width), an image is a grid of rows among the text.

The encoder's tokens are merged patches; grids count tokens. A video is a grid for each pair of frames, apart in time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Qwen2_5_VLTextModel

from decoder_service.language.base import Family, LanguageModel, Positions, Rope, refuse_unpackable_rope, shape_of
from decoder_service.language.tokens import read_special_tokens
from decoder_service.request import Prompt
from decoder_service.runner.attention import register_attention
from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError, InvalidArgument
from vscan.specs import PositionPolicy
from vscan.visual_tokens import VisualTokens

# Both styles: `model.layers…` beside `visual…` of the hub, `model.language_model.layers…` of newer files.
_KEY_MAPPING = {r"^(model\.language_model|language_model|model)\.": ""}
_HEAD = "lm_head.weight"
_AXES = 3
_MOST_TIME = 2**24  # what float32, in which times are computed, counts exactly; no model has a context so long


class QwenLanguage(LanguageModel):
    """The language half of Qwen2.5-VL. Scores leave rotary embeddings out (VScan, arXiv 2505.22654, as released).

    By default pruned prompts keep their places. Where a request asks to re-number, the rows that are left stand one after the
    other on all three axes from the pruning layer on, as text does: a visual token's place in its grid is given up.
    """

    default_positions = PositionPolicy.KEEP
    rope_in_scores = False

    def __init__(self, model: Any, *, places_per_frame_second: float, **stated: Any) -> None:
        """
        Args:
            places_per_frame_second: on the time axis, from one pair of frames to the next, where frames are a second apart.
        """
        super().__init__(model, **stated)
        self._places_per_frame_second = places_per_frame_second

    def positions_taken(self, prompt: Prompt) -> int:
        """Up to the last place on any axis: a video's time may run ahead of all text."""
        return self._lay_out(prompt)[1]

    def prompt_positions(self, prompt: Prompt) -> Positions:
        """As in the prompt without any reduction: a dropped token leaves a gap. A 2 x 3 image of which 0, 4 and 5 are kept:

        rows      s s v v v q q
        time      0 1 2 2 2 5 6
        height    0 1 2 3 3 5 6
        width     0 1 2 3 4 5 6        next 7

        A video of three 1 x 2 grids, 4 places apart in time. Text does not wait for its time to pass, as transformers has it:

        rows      s v v v v v v q
        time      0 1 1 5 5 9 9 3
        height    0 1 1 1 1 1 1 3
        width     0 1 2 1 2 1 2 3      next 4, taken 10
        """
        return self._lay_out(prompt)[0]

    def _lay_out(self, prompt: Prompt) -> tuple[Positions, int]:
        """The prompt's positions, and how many it takes."""
        parts, row, start, furthest = [], 0, 0, 0
        for span in prompt.spans:
            image = prompt.images[span.image]
            parts.append(_text_places(start, span.start - row))
            start += span.start - row
            rows, columns = _grid(image, f"images[{span.image}]")
            times = self._times(image, f"images[{span.image}]")
            parts.append(_kept_places(image, times, rows, columns) + start)
            furthest = max(furthest, start + int(times[-1]) + 1)
            start += max(rows, columns)
            row = span.start + span.count
        text = prompt.rows - row
        parts.append(_text_places(start, text))
        taken = max(furthest, start + text)
        return Positions(torch.cat(parts, dim=1), start + text if text else taken), taken

    def _times(self, image: VisualTokens, field: str) -> torch.Tensor:
        """Place of each grid on the time axis, from 0, [grids], int64."""
        interval = 1.0 if image.frames is None else self._places_per_frame_second * image.frames.interval_seconds
        if (len(image.tiles) - 1) * interval > _MOST_TIME:
            raise InvalidArgument(field, f"{len(image.tiles)} moments {interval:g} places apart", limit=f"{_MOST_TIME} places")
        return (torch.arange(len(image.tiles), dtype=torch.float32) * interval).long()  # as transformers has it

    def on_all_axes(self, places: torch.Tensor) -> torch.Tensor:
        """The same place on all axes, [3, rows]."""
        return places.expand(_AXES, -1)

    def rope(self, hidden: torch.Tensor, places: torch.Tensor) -> Rope:
        """As the base has it, for places [3, rows]."""
        cos, sin = self._decoder.rotary_emb(hidden, places[:, None])
        return cos, sin


def load(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device | str) -> LanguageModel:
    """Loads the language half alone. Raises CheckpointError when it is missing or of a kind that is not served."""
    config = checkpoint.config.get_text_config()
    refuse_unpackable_rope(checkpoint, config)
    shape = shape_of(config)
    sections = config.rope_parameters.get("mrope_section")
    if not sections or len(sections) != _AXES or 2 * sum(sections) != shape.head_dim:
        raise CheckpointError(
            f"{checkpoint.directory}: mrope_section {sections} does not share out {shape.head_dim // 2} pairs"
        )
    text = checkpoint.load_half(
        Qwen2_5_VLTextModel, config, key_mapping=_KEY_MAPPING, dtype=dtype, device=device, attention=register_attention()
    )
    head = _load_head(checkpoint, text, dtype, device)
    tokens = read_special_tokens(
        checkpoint,
        placeholder_id=int(checkpoint.config.image_token_id),
        video_placeholder_id=int(checkpoint.config.video_token_id),
    )
    vision = checkpoint.config.vision_config
    return QwenLanguage(
        _CausalModel(text, head, text.dtype, text.device),
        family=FAMILY.model_type,
        shape=shape,
        tokens=tokens,
        places_per_frame_second=vision.tokens_per_second * vision.temporal_patch_size,
    )


class _CausalModel(NamedTuple):
    """transformers has no class for text model and head without the vision half."""

    model: Any
    lm_head: Any
    dtype: torch.dtype
    device: torch.device


def _load_head(checkpoint: Checkpoint, text: Any, dtype: torch.dtype, device: torch.device | str) -> Any:
    """A head in the files is used even where the configuration calls it tied, as transformers does."""
    if _HEAD not in checkpoint.files and checkpoint.config.tie_word_embeddings:
        return _linear(text.embed_tokens.weight)
    weight = checkpoint.load_tensors([_HEAD], dtype=dtype, device=device)[_HEAD]
    if weight.shape != text.embed_tokens.weight.shape:
        needed = list(text.embed_tokens.weight.shape)
        raise CheckpointError(f"{checkpoint.directory}: {_HEAD} is {list(weight.shape)} where {needed} is needed")
    return _linear(weight)


def _linear(weight: torch.Tensor) -> nn.Linear:
    """The layer with this weight, [out, in]."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def _text_places(start: int, count: int) -> torch.Tensor:
    return torch.arange(start, start + count).expand(_AXES, -1)


def _grid(image: VisualTokens, field: str) -> tuple[int, int]:
    """Rows and columns of a moment; each tile is one."""
    grids = {(tile.rows, tile.columns) for tile in image.tiles}
    if len(grids) != 1:
        raise InvalidArgument(field, f"tiles of {len(grids)} sizes", limit="one")
    return grids.pop()


def _kept_places(image: VisualTokens, times: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Time, height and width of every kept token in the grids before the reduction, [3, T], from 0; `times` of each grid."""
    kept = image.kept_indices
    return torch.stack((times[kept // (rows * columns)], kept // columns % rows, kept % columns))


FAMILY = Family(model_type="qwen2_5_vl", load=load)
