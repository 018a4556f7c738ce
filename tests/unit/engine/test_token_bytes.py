"""What tokens add to an answer's text, in the words of any kind of tokenizer."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from decoder_service.request import SampledToken
from decoder_service.token_bytes import AnswerTokens
from tests.unit.engine.test_constraint import END, TOKENIZERS, vocabulary_of

TEXTS = {
    "byte_level": "a naïve star 👾 above\n\nthe  square ",
    "byte_fallback": "a naïve star 👾 above the  square ",
    "metaspace": "is there a star",
    "word_level": "how many triangles are there?",
}


@pytest.fixture(params=TOKENIZERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def of_answer(tokenizer: Tokenizer, ids: list[int], *, sample: int = 0) -> list[bytes | None]:
    tokens = AnswerTokens(vocabulary_of(tokenizer))
    messages = [tokens.message(sample, SampledToken(token, -1.0, ((token, -1.0), (END, -2.0)))) for token in ids]
    for message in messages:
        assert message.top[0].text == message.text
        assert not message.top[1].HasField("text"), "a control token has no text"
    return [message.text if message.HasField("text") else None for message in messages]


def test_those_of_an_answer_joined_are_its_text(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer.encode(TEXTS[kind], add_special_tokens=False).ids
    texts = of_answer(tokenizer, ids)
    assert len(ids) > 3
    assert b"".join(text or b"" for text in texts).decode() == tokenizer.decode(ids)


def test_a_control_token_has_none_and_does_not_begin_the_text(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    ids = tokenizer.encode(TEXTS[kind], add_special_tokens=False).ids[:2]
    assert of_answer(tokenizer, [END, *ids, END]) == [None, *of_answer(tokenizer, ids), None]


def test_each_sample_begins_by_itself() -> None:
    tokenizer = TOKENIZERS["word_level"]()
    tokens = AnswerTokens(vocabulary_of(tokenizer))
    word = SampledToken(tokenizer.encode("star", add_special_tokens=False).ids[0], -1.0)
    assert [tokens.message(sample, word).text for sample in (0, 0, 1, 1)] == [b"star", b" star"] * 2


def test_nothing_of_it_is_sent_where_no_log_probabilities_were_asked_for() -> None:
    message = AnswerTokens(vocabulary_of(TOKENIZERS["word_level"]())).message(0, SampledToken(9))
    assert (message.HasField("text"), message.HasField("logprob")) == (False, False)
