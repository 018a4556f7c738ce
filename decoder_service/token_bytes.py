"""What each token of an answer adds to its text, for those who asked for log-probabilities. No torch."""

from __future__ import annotations

from decoder_service.constraint.vocabulary import Vocabulary
from decoder_service.request import SampledToken
from vscan.v1 import decoder_pb2


class AnswerTokens:
    """Tokens of one request's answers as messages; it knows which samples have begun their text. Belongs to one stream."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._begun: set[int] = set()

    def message(self, sample: int, token: SampledToken) -> decoder_pb2.GeneratedToken:
        """The next token of a sample. Its bytes only where log-probabilities were asked for."""
        if token.logprob is None:
            return decoder_pb2.GeneratedToken(token_id=token.token_id)
        begins = sample not in self._begun
        text = self._vocabulary.text_of(token.token_id, begins=begins)
        if text is not None:
            self._begun.add(sample)
        return decoder_pb2.GeneratedToken(
            token_id=token.token_id,
            logprob=token.logprob,
            text=text,
            top=[
                decoder_pb2.TokenLogprob(
                    token_id=token_id, logprob=logprob, text=self._vocabulary.text_of(token_id, begins=begins)
                )
                for token_id, logprob in token.top
            ],
        )
