"""One answer (of a request, one sample) as it grows: tokens become deltas, and it ends at a token, a stop string or a length,
or when it is whole.
"""

from __future__ import annotations

from collections import deque

from decoder_service.detokenize import StopFilter, TextStream, TokenDecoder
from decoder_service.request import Delta, FinishReason, SampledToken, SampleEnd, Sampling


class Answer:
    """Owned by the engine's thread.

    Tokens wait for their text: while a character is incomplete, or a stop string may have begun. So ids tell nothing sooner
    than text does; those of a stop string come with the end.

        stop "END", tokens "a" " E" "N" "D."      deltas "a" (1 token), " " (0), "" (0), then at the end "" (3)

    Args:
        end_ids: tokens that end an answer (unless the request ignores them).
        sample: which of the request's answers it is.
    """

    def __init__(self, sampling: Sampling, *, decode: TokenDecoder, end_ids: frozenset[int], sample: int = 0) -> None:
        self.sample = sample
        self.tokens = 0
        self.reason: FinishReason | None = None
        self._limit = sampling.max_new_tokens
        self._end_ids = frozenset() if sampling.ignore_eos else end_ids
        self._stop_ids = frozenset(sampling.stop_token_ids)
        self._text = TextStream(decode)
        self._stop = StopFilter(sampling.stop)
        self._made_chars = self._out_chars = 0
        self._incomplete: list[SampledToken] = []  # tokens whose last character is
        self._held: deque[tuple[int, SampledToken]] = deque()  # with the number of characters up to their end

    def push(self, token: SampledToken) -> Delta:
        """Takes the next token. Sets `reason` if the answer ends with it; then the delta has all text and tokens that are left.

        Raises:
            VScanError: the answer cannot go on (`SampledToken.problem`).
        """
        self.tokens += 1
        text = self._read(token)
        self.reason = self._ended(token)
        if self.reason is None and token.problem is not None:
            raise token.problem
        if self.reason is None:
            return Delta(text, self._released(), self.sample)
        if not self._stop.stopped:
            text += self._rest()
        return Delta(text, (*(held for _, held in self._held), *self._incomplete), self.sample, self.reason)

    @property
    def end(self) -> SampleEnd | None:
        """How it ended; None while it goes on."""
        return None if self.reason is None else SampleEnd(self.sample, self.reason, self.tokens)

    def _read(self, token: SampledToken) -> str:
        """The text that may go out."""
        made = "" if token.token_id in self._stop_ids else self._text.push(token.token_id)
        text = self._stop.push(made)
        self._made_chars += len(made)
        self._out_chars += len(text)
        self._incomplete.append(token)
        if self._text.complete:
            self._held.extend((self._made_chars, each) for each in self._incomplete)
            self._incomplete.clear()
        return text

    def _released(self) -> tuple[SampledToken, ...]:
        """Tokens whose text is out."""
        released = []
        while self._held and self._held[0][0] <= self._out_chars:
            released.append(self._held.popleft()[1])
        return tuple(released)

    def _ended(self, token: SampledToken) -> FinishReason | None:
        if self._stop.stopped:
            return FinishReason.STOP_STRING
        if token.token_id in self._end_ids:
            return FinishReason.END_OF_SEQUENCE
        if token.token_id in self._stop_ids:
            return FinishReason.STOP_TOKEN
        if token.complete:
            return FinishReason.CONSTRAINT
        return FinishReason.LENGTH if self.tokens >= self._limit else None

    def _rest(self) -> str:
        """What was held back; a stop string may be complete only now."""
        text = self._stop.push(self._text.flush())
        if self._stop.stopped:
            self.reason = FinishReason.STOP_STRING
        return text + self._stop.flush()
