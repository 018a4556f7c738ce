"""The tokens of log-probabilities as OpenAI's: their text and bytes, as the decoder tells them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from vscan_client import Token

_LEAST_LOGPROB = -9999.0  # OpenAI's for what is as good as impossible; JSON has no infinity


def entries(tokens: Sequence[Token], top: int) -> list[dict[str, Any]]:
    """Tokens as `logprobs.content`, each with its `top` likeliest alternatives."""
    return [_entry(token, top) for token in tokens]


def _entry(token: Token, top: int) -> dict[str, Any]:
    alternatives = zip_longest(token.top[:top], token.top_bytes[:top])
    told = [_named(token_id, logprob, text) for (token_id, logprob), text in alternatives]
    return {**_named(token.token_id, token.logprob or 0.0, token.text_bytes), "top_logprobs": told}


def _named(token_id: int, logprob: float, text: bytes | None) -> dict[str, Any]:
    """A token without a text (one of control, or of a decoder that does not say) is called by its number."""
    return {
        "token": f"token_id:{token_id}" if text is None else text.decode(errors="replace"),
        "logprob": max(logprob, _LEAST_LOGPROB),
        "bytes": None if text is None else list(text),
    }
