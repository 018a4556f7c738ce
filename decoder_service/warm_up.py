"""One made-up question before the first real one, so that nobody waits for memory, kernels and lazy set-up."""

from __future__ import annotations

import torch

from decoder_service.engine_loop import EngineLoop
from decoder_service.kv_cache.segments import PageLayout
from decoder_service.language.base import LanguageModel
from decoder_service.request import EngineRequest, ImageSpan, Prompt, Pruning, Sampling
from decoder_service.sequence import Sequence
from vscan.specs import KeepTokens, Rater
from vscan.visual_tokens import PickedBy, Tile, VisualTokens

_ROWS = 16
_KEPT = 4


async def warm_up(engine: EngineLoop, language: LanguageModel, prune_layers: tuple[int, ...]) -> None:
    """Runs a small prompt with an image through every layer, pruning included, and two tokens after it.

    Raises:
        VScanError: the model cannot even do that.
    """
    answer = await engine.submit(_request(language, prune_layers))
    async for _ in answer:
        pass


def warm_up_pages(language: LanguageModel, layout: PageLayout) -> int:
    """Pages of the cache that this takes: with fewer no decoder starts."""
    prune_layers = tuple(segment.first_layer for segment in layout.segments[1:])
    return layout.pages(Sequence(_request(language, prune_layers), layout.segments).most_rows())


def _request(language: LanguageModel, prune_layers: tuple[int, ...]) -> EngineRequest:
    return EngineRequest(
        request_id="warm-up",
        prompt=_prompt(language),
        sampling=Sampling(max_new_tokens=3, ignore_eos=True),
        pruning=Pruning(layers=prune_layers, budgets=(KeepTokens(_KEPT),) * len(prune_layers), rater=Rater.LAST_TOKEN),
    )


def _prompt(language: LanguageModel) -> Prompt:
    text = next(iter(language.tokens.end_ids))
    ids = (text, *[language.tokens.placeholder_id] * _ROWS, text)
    return Prompt(ids, (ImageSpan(image=0, start=1, count=_ROWS),), (_image(language),))


def _image(language: LanguageModel) -> VisualTokens:
    return VisualTokens(
        tokens=torch.zeros(_ROWS, language.shape.hidden_size, dtype=language.dtype),
        kept_indices=torch.arange(_ROWS),
        picked_by=torch.full((_ROWS,), PickedBy.ALL, dtype=torch.uint8),
        merged_into=None,
        tiles=(Tile(1, _ROWS, _ROWS),),
        unreduced_count=_ROWS,
    )
