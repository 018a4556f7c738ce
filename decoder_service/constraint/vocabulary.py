"""The texts of a model's tokens, as the grammar library needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray
from tokenizers import Tokenizer

from decoder_service.language.tokens import SpecialTokens
from vscan.errors import CheckpointError

# A bit for each token id, the lowest bit of the first byte for id 0: [ids / 8], uint8
TokenMask = NDArray[np.uint8]

_MOST_LOOKED_AHEAD = 32
_REPLACEMENT = "\ufffd"


class Vocabulary:
    """Immutable; used by any thread.

    Attributes:
        library: the same, in the library's form.
        drops_first_space: whether an answer's text lacks the blank with which its first token begins (SentencePiece, words).
        end_ids: tokens that end an answer.
    """

    def __init__(
        self,
        library: LLTokenizer,
        *,
        size: int,
        drops_first_space: bool,
        tokens: SpecialTokens,
        model_ids: int,
        decode: Callable[[list[int]], str],
        never_first: Iterable[int] = (),
    ) -> None:
        """
        Args:
            size: ids of the tokenizer; the library's may go on beyond them.
            model_ids: ids that the model gives a logit; no other can come.
            decode: ids to text.
            never_first: tokens whose text is another where an answer begins.
        """
        self.library = library
        self._decode = decode
        self.drops_first_space = drops_first_space
        self.end_ids = tokens.end_ids
        self._has_dead_ends = size < library.vocab_size
        self._ends = _mask(tokens.end_ids, size)
        self._written = set(range(min(size, model_ids))) - tokens.control_ids - tokens.end_ids
        self._texts = _mask(self._written, size)
        self._beginnings = ~_mask(never_first, size)

    def text_of(self, token_id: int, *, begins: bool) -> bytes | None:
        """What a token adds to an answer's text, maybe a part of a character; None for a control token.

        `begins`: no token with a text came before it.
        """
        if token_id not in self._written:
            return None
        alone = self._decode([token_id]) if begins else _REPLACEMENT
        if _REPLACEMENT not in alone:  # many tokenizers write no blank before a first word
            return alone.encode()
        text: bytes = self.library.decode_bytes([token_id])
        return text

    def texts_after(self, matcher: LLMatcher) -> TokenMask:
        """Which tokens with a text may come next; control tokens never."""
        mask = self._mask_after(matcher)
        return self._without_dead_ends(mask, matcher) if self._has_dead_ends else mask

    def first_texts(self, matcher: LLMatcher) -> TokenMask:
        """Which tokens may begin an answer."""
        return self.texts_after(matcher) & self._beginnings

    def with_ends(self, mask: TokenMask) -> TokenMask:
        """The mask, and the tokens that end an answer."""
        return mask | self._ends

    def _mask_after(self, matcher: LLMatcher) -> TokenMask:
        mask: TokenMask = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)[: self._texts.shape[0]]
        return mask & self._texts

    def _without_dead_ends(self, mask: TokenMask, matcher: LLMatcher) -> TokenMask:
        """Without tokens that no other can follow: where `there` may come `the` may too, but there is no word `re`.

        Looks one token ahead, and only where few may come: it takes a mask for each.
        """
        bits = np.unpackbits(mask, bitorder="little")
        tokens = np.flatnonzero(bits)
        if len(tokens) > _MOST_LOOKED_AHEAD:
            return mask
        for token in tokens.tolist():
            ahead = matcher.deep_copy()
            ahead.consume_token(token)
            if not ahead.is_accepting() and not self._mask_after(ahead).any():
                bits[token] = 0
        return np.packbits(bits, bitorder="little")


def read_vocabulary(directory: Path, tokens: SpecialTokens, *, model_ids: int) -> Vocabulary:
    """The vocabulary of a checkpoint's tokenizer.json.

    The library reads the tokenizers whose tokens are bytes (byte-level BPE, SentencePiece with byte fallback). For others each
    token has the text that the decoder makes of it after another word.

    Raises:
        CheckpointError: there is no tokenizer.json that can be read.
    """
    try:
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise CheckpointError(f"{directory}: tokenizer.json cannot be read") from error
    return make_vocabulary(tokenizer, tokens, model_ids=model_ids)


def make_vocabulary(tokenizer: Tokenizer, tokens: SpecialTokens, *, model_ids: int | None = None) -> Vocabulary:
    """The vocabulary of a tokenizer; `model_ids`: how many of its ids the model gives a logit, all of them unless told."""
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ends = sorted(tokens.end_ids)
    never_first: Sequence[int] = ()
    try:
        library = LLTokenizer(tokenizer.to_str(), eos_token=ends)
        size = library.vocab_size
    except ValueError:  # a kind that the library does not know
        words = _Words(tokenizer, ends)
        library = LLTokenizer(TokenizerWrapper(words), eos_token=ends)
        size, never_first = words.size, words.never_first
    drops = _drops_first_space(tokenizer, library)
    return Vocabulary(
        library,
        size=size,
        drops_first_space=drops,
        tokens=tokens,
        model_ids=size if model_ids is None else model_ids,
        decode=tokenizer.decode,
        never_first=never_first,
    )


class _Words:
    """A tokenizer of any kind, with the attributes that the library asks for.

    ids            yes   no   .
    decoded        "yes" "no" "."        after "yes":  "yes yes"  "yes no"  "yes."
    tokens         " yes" " no" "."      and, beyond the tokenizer's ids, one for each byte: the library wants to write any text
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, end_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = end_ids[0]
        self.size = max(*tokenizer.get_vocab().values(), *end_ids) + 1
        lead = next(([word] for word in range(self.size) if self._text([word]).isalnum()), [])
        before = self._text(lead)
        texts = (self._text([*lead, token]) for token in range(self.size))
        words = [text[len(before) :].encode() if text.startswith(before) else b"" for text in texts]
        self.tokens = [*words, *(bytes([byte]) for byte in range(256))]
        self.special_token_ids = [token for token, text in enumerate(words) if not text]
        self.never_first = [
            token for token, text in enumerate(words) if self._text([token]).encode() not in (text, text.removeprefix(b" "))
        ]
        # Where a word has the text of a byte, the word.
        self._ids = {text: token for token, text in reversed(list(enumerate(self.tokens))) if text}
        self._longest_bytes = max(map(len, self._ids))

    def __call__(self, text: bytes) -> list[int]:
        """Tokens that are this text together; the tokenizer itself would put a blank first."""
        ids: list[int] = []
        while text:
            end = next(end for end in range(self._longest_bytes, 0, -1) if text[:end] in self._ids)
            ids.append(self._ids[text[:end]])
            text = text[end:]
        return ids

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _drops_first_space(tokenizer: Tokenizer, library: LLTokenizer) -> bool:
    for token in range(library.vocab_size):
        text = library.decode_bytes([token])
        if len(text) > 1 and text.startswith(b" ") and text.isascii() and not library.is_special_token(token):
            return str(tokenizer.decode([token], skip_special_tokens=True)) == text[1:].decode()
    return False


def _mask(ids: Iterable[int], size: int) -> TokenMask:
    bits = np.zeros(-size % 8 + size, dtype=np.uint8)
    bits[[token for token in ids if token < size]] = 1
    return np.packbits(bits, bitorder="little")
