"""Video-LLaVA: an image is its visual tokens, a video those of its frames, [CLS] first in each; nothing around them."""

from __future__ import annotations

from functools import partial

from decoder_service.language.base import Family
from decoder_service.language.causal import load_causal

FAMILY = Family(model_type="video_llava", load=partial(load_causal, "video_llava", videos=True))
