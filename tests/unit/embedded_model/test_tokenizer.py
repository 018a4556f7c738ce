"""The tokenizer: every question and answer survives the way to ids and back."""

import pytest
from transformers import PreTrainedTokenizerFast

from embedded_model.questions import WORDS, ask_many
from embedded_model.scenes import draw_scene, seeded
from embedded_model.tokenizer import BOS, IMAGE, SPECIALS, UNK, VOCABULARY, build_tokenizer, word_ids


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


def test_questions_and_answers_round_trip(tokenizer: PreTrainedTokenizerFast) -> None:
    rng = seeded(21)
    for seed in range(60):
        for question in ask_many(draw_scene(seed).layout, 8, rng):
            for text in (question.text, question.answer):
                ids = tokenizer(text).input_ids
                assert VOCABULARY[UNK] not in ids
                assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_word_ids_equal_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    for question in ask_many(draw_scene(3).layout, 40, seeded(22)):
        text = f"user: {question.text} assistant: {question.answer}"
        assert tokenizer(text, add_special_tokens=False).input_ids == word_ids(text)


def test_prompt_begins_with_bos_and_folds_case(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("USER: <image> Is there any STAR? ASSISTANT:").input_ids
    assert ids == [VOCABULARY[BOS], *word_ids("user:"), VOCABULARY[IMAGE], *word_ids("is there any star? assistant:")]


def test_unknown_words_become_unk(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer("zebra", add_special_tokens=False).input_ids == [VOCABULARY[UNK]]


def test_vocabulary_has_no_word_twice() -> None:
    assert len(VOCABULARY) == len(WORDS) + len(SPECIALS)
