"""LLaVA-1.5: an image is its visual tokens, nothing around them."""

from __future__ import annotations

from functools import partial

from decoder_service.language.base import Family
from decoder_service.language.causal import load_causal

FAMILY = Family(model_type="llava", load=partial(load_causal, "llava"))
