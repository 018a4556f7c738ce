"""LLaVA-NeXT: an image is its visual tokens, the ends of rows among them, which the encoder puts there."""

from __future__ import annotations

from functools import partial

from decoder_service.language.base import Family
from decoder_service.language.causal import load_causal

FAMILY = Family(model_type="llava_next", load=partial(load_causal, "llava_next"))
