"""What the tokens of log-probabilities are called: their text where the gateway has the tokenizer, else their number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vscan.errors import StartupError
from vscan_client import Token

_LEAST_LOGPROB = -9999.0  # OpenAI's for what is as good as impossible; JSON has no infinity
_REPLACED = "�"


class TokenTexts:
    """Names of tokens.

    Args:
        file: the checkpoint's `tokenizer.json`; None for none.

    Raises:
        StartupError: it cannot be read, or the package `tokenizers` is not there.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._tokenizer: Any = None if file is None else _open(file)

    def entries(self, tokens: Sequence[Token], top: int, *, begins: bool) -> list[dict[str, Any]]:
        """Tokens as `logprobs.content`, each with its `top` likeliest alternatives. `begins`: they are an answer's first."""
        return [self._entry(token, top, first=begins and index == 0) for index, token in enumerate(tokens)]

    def _entry(self, token: Token, top: int, *, first: bool) -> dict[str, Any]:
        alternatives = [self._named(token_id, logprob, first) for token_id, logprob in token.top[:top]]
        return {**self._named(token.token_id, token.logprob or 0.0, first), "top_logprobs": alternatives}

    def _named(self, token_id: int, logprob: float, first: bool) -> dict[str, Any]:
        text = None if self._tokenizer is None else self._text(token_id, first)
        return {
            "token": f"token_id:{token_id}" if text is None else text,
            "logprob": max(logprob, _LEAST_LOGPROB),
            "bytes": None if text is None or _REPLACED in text else list(text.encode()),
        }

    def _text(self, token_id: int, first: bool) -> str:
        """As it stands in an answer: many tokenizers drop the blank before a first word, and write it before others."""
        alone: str = self._tokenizer.decode([token_id], skip_special_tokens=False)
        twice: str = self._tokenizer.decode([token_id, token_id], skip_special_tokens=False)
        return alone if first or not twice.startswith(alone) else twice[len(alone) :]


def _open(file: Path) -> Any:
    try:
        from tokenizers import Tokenizer  # of the extra `serve`, and of its own package
    except ModuleNotFoundError as error:
        raise StartupError("`tokenizer_file` needs the package tokenizers: pip install tokenizers") from error
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library's own, of no closer class
        raise StartupError(f"tokenizer_file: {file} cannot be read: {error}") from error
