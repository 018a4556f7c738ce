"""A constraint is met by every answer that its masks let through, in the words of any kind of tokenizer."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from decoder_service.constraint.grammar import Grammar, GrammarWalk, compile_grammar
from decoder_service.constraint.vocabulary import TokenMask, Vocabulary, make_vocabulary, read_vocabulary
from decoder_service.language.tokens import SpecialTokens
from decoder_service.runner.sampler import unpack_masks
from tests.support import tokenizers as kinds
from tests.support.language_models import PARITY
from tests.unit.engine.test_detokenize import with_byte_fallback
from vscan.errors import CheckpointError, InvalidArgument
from vscan.specs import Constraint, JsonSchema, Regex

END, IMAGE = 2, 4
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": lambda: kinds.byte_level().backend_tokenizer,
    "byte_fallback": with_byte_fallback,
    "metaspace": lambda: kinds.metaspace().backend_tokenizer,
    "word_level": lambda: kinds.word_level().backend_tokenizer,
}
WRITES_JSON = ["byte_level", "byte_fallback"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "green"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
    },
    "required": ["colour", "count", "names"],
    "additionalProperties": False,
}


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    control = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    return make_vocabulary(tokenizer, SpecialTokens(IMAGE, frozenset({END}), frozenset(control | {END, IMAGE}), frozenset()))


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]()


def allowed(mask: TokenMask) -> list[int]:
    return [int(token) for token in np.nonzero(np.unpackbits(mask, bitorder="little"))[0]]


def written(tokenizer: Tokenizer, walk: GrammarWalk, generator: random.Random, *, most: int = 400) -> str:
    """A random answer, to its end."""
    ids: list[int] = []
    while not walk.complete:
        assert walk.problem is None, f"{walk.problem} after {tokenizer.decode(ids)!r}"
        assert len(ids) < most
        token = generator.choice(allowed(walk.mask))
        if token == END:
            break
        ids.append(token)
        walk.take(token)
    return str(tokenizer.decode(ids, skip_special_tokens=True))


EXPRESSIONS = [
    "is there( a star)?",
    "^(is|there)( (is|there)){0,3}$",
    "(is there|is)( a star in the picture\\?)?",
]


@pytest.mark.parametrize("pattern", EXPRESSIONS)
def test_every_answer_matches_the_expression(tokenizer: Tokenizer, pattern: str) -> None:
    generator = random.Random(pattern)
    grammar = compile_grammar(Regex(pattern), vocabulary_of(tokenizer))
    answers = {written(tokenizer, grammar.walk(ignore_eos=False), generator) for _ in range(25)}
    assert len(answers) > 1
    for answer in answers:
        assert re.fullmatch(pattern, answer), answer


@pytest.mark.parametrize("name", WRITES_JSON)
def test_every_answer_fits_the_schema(name: str) -> None:
    tokenizer, generator = TOKENIZERS[name](), random.Random(name)
    grammar = compile_grammar(JsonSchema.of(SCHEMA), vocabulary_of(tokenizer))
    for _ in range(25):
        value = json.loads(written(tokenizer, grammar.walk(ignore_eos=False), generator))
        assert set(value) == set(SCHEMA["properties"])
        assert value["colour"] in ("red", "green")
        assert value["count"] in range(21)
        assert len(value["names"]) <= 2
        assert all(isinstance(word, str) and len(word) <= 5 for word in value["names"])


@settings(max_examples=30, deadline=None)
@given(words=st.lists(st.text(min_size=1, max_size=6).filter(lambda text: "\0" not in text), min_size=1, max_size=4))
def test_any_texts_can_be_asked_for(words: list[str]) -> None:
    """Characters of several tokens among them: no answer has half of one."""
    tokenizer = TOKENIZERS["byte_level"]()
    grammar = compile_grammar(Regex("|".join(re.escape(word) for word in words)), vocabulary_of(tokenizer))
    assert written(tokenizer, grammar.walk(ignore_eos=False), random.Random(1)) in words


@pytest.mark.parametrize("name", WRITES_JSON)
def test_blanks_between_parts_of_a_value_come_to_an_end(name: str) -> None:
    vocabulary = vocabulary_of(TOKENIZERS[name]())
    walk = compile_grammar(JsonSchema.of(SCHEMA), vocabulary).walk(ignore_eos=False)
    texts = [vocabulary.library.decode_bytes([token]) for token in range(vocabulary.library.vocab_size)]
    brace, line_break = (texts.index(text) for text in (b"{", b"\n"))
    walk.take(brace)
    blanks = 0
    while line_break in allowed(walk.mask):
        walk.take(line_break)
        blanks += 1
        assert blanks <= 32
    assert blanks


def test_nothing_may_follow_a_whole_answer() -> None:
    tokenizer = TOKENIZERS["byte_level"]()
    walk = compile_grammar(Regex("yes"), vocabulary_of(tokenizer)).walk(ignore_eos=False)
    for token in tokenizer.encode("yes", add_special_tokens=False).ids:
        assert not walk.complete
        assert END not in allowed(walk.mask)
        walk.take(token)
    assert walk.complete
    assert walk.problem is None


def after(text: str, grammar: Grammar, tokenizer: Tokenizer, *, ignore_eos: bool) -> list[int]:
    walk = grammar.walk(ignore_eos=ignore_eos)
    for token in tokenizer.encode(text, add_special_tokens=False).ids:
        walk.take(token)
    return allowed(walk.mask)


def test_the_end_token_may_come_where_the_answer_may_end() -> None:
    tokenizer = TOKENIZERS["byte_level"]()
    grammar = compile_grammar(Regex("a+b?"), vocabulary_of(tokenizer))
    assert END not in after("", grammar, tokenizer, ignore_eos=False)
    assert END in after("aa", grammar, tokenizer, ignore_eos=False)
    assert END not in after("aa", grammar, tokenizer, ignore_eos=True)
    assert len(after("aa", grammar, tokenizer, ignore_eos=True)) > 1


def test_walks_of_one_grammar_do_not_touch_each_other() -> None:
    tokenizer = TOKENIZERS["byte_level"]()
    grammar = compile_grammar(Regex("[a-z]{3}"), vocabulary_of(tokenizer))
    first, second = grammar.walk(ignore_eos=False), grammar.walk(ignore_eos=False)
    before = allowed(second.mask)
    for token in tokenizer.encode("abc", add_special_tokens=False).ids:
        first.take(token)
    assert first.complete
    assert not second.complete
    assert allowed(second.mask) == allowed(grammar.walk(ignore_eos=False).mask) == before


def test_control_tokens_never_come(tokenizer: Tokenizer) -> None:
    mask = compile_grammar(Regex("(?s:.*)"), vocabulary_of(tokenizer)).walk(ignore_eos=True).mask
    control = [token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special]
    assert not set(control) & set(allowed(mask))
    assert len(allowed(mask)) > 40


BAD: dict[str, tuple[Constraint, str]] = {
    "no expression": (Regex("(yes"), "sampling.regex: unclosed group"),
    "no expression beside another": (Regex("a)|(b"), "sampling.regex: unopened group"),
    "look-ahead": (Regex("(?=a)b"), "sampling.regex: look-around, including look-ahead and look-behind, is not supported"),
    "too much": (Regex("(a{1000}){1000}"), "too many expressions constructed"),
    "deep": (Regex("(" * 5000 + "a" + ")" * 5000), "sampling.regex: "),
    "not JSON": (JsonSchema("{"), "sampling.json_schema: not JSON"),
    "no number": (JsonSchema('{"minimum": NaN}'), "sampling.json_schema: not JSON"),
    "no object": (JsonSchema("[1]"), "sampling.json_schema: not a JSON object"),
    "deep JSON": (JsonSchema('{"items":' * 50_000), "sampling.json_schema: not JSON"),
    "a deep schema": (JsonSchema('{"items":' * 400 + "{}" + "}" * 400), "sampling.json_schema: "),
    "an unknown type": (JsonSchema('{"type": "objekt"}'), "sampling.json_schema: "),
    "not supported": (JsonSchema('{"not": {}}'), 'Unimplemented keys: ["not"]'),
    "another document": (JsonSchema('{"$ref": "http://example.com/x.json"}'), "sampling.json_schema: "),
    "impossible": (JsonSchema('{"type": "integer", "minimum": 5, "maximum": 3}'), "sampling.json_schema: "),
}


@pytest.mark.parametrize(("constraint", "words"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("name", WRITES_JSON)
def test_what_cannot_be_compiled_is_refused_by_its_field(name: str, constraint: Constraint, words: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        compile_grammar(constraint, vocabulary_of(TOKENIZERS[name]()))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_an_answer_of_no_token_cannot_be_asked_for() -> None:
    with pytest.raises(InvalidArgument, match=r"^sampling\.regex: this model's vocabulary has no token with which"):
        compile_grammar(Regex(""), vocabulary_of(TOKENIZERS["byte_level"]()))


def test_what_the_vocabulary_cannot_write_is_refused_at_once_or_when_it_shows() -> None:
    tokenizer = TOKENIZERS["word_level"]()
    words = vocabulary_of(tokenizer)
    with pytest.raises(InvalidArgument, match=r"^sampling\.json_schema: this model's vocabulary"):
        compile_grammar(JsonSchema.of(SCHEMA), words)
    walk = compile_grammar(Regex("is there a 你好"), words).walk(ignore_eos=False)
    for token in tokenizer.encode("is there", add_special_tokens=False).ids:
        assert walk.problem is None
        walk.take(token)
    assert not walk.complete
    assert walk.problem is not None
    assert walk.problem.field == "sampling.regex"
    assert "vocabulary" in walk.problem.message


def test_a_word_that_leads_nowhere_is_not_offered() -> None:
    """`the` begins `there`, but the rest of it is no word."""
    tokenizer = TOKENIZERS["word_level"]()
    walk = compile_grammar(Regex("there"), vocabulary_of(tokenizer)).walk(ignore_eos=False)
    assert [tokenizer.id_to_token(token) for token in allowed(walk.mask)] == ["there"]


def test_masks_become_rows_over_the_models_whole_vocabulary() -> None:
    mask = np.packbits(np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1], dtype=np.uint8), bitorder="little")
    rows = unpack_masks([mask, ~mask], 10, torch.device("cpu"))
    assert rows[0].nonzero().flatten().tolist() == [0, 3, 9]
    assert rows[1].nonzero().flatten().tolist() == [1, 2, 4, 5, 6, 7, 8]


def test_a_checkpoints_vocabulary_is_read_from_its_file(tmp_path: Any) -> None:
    tokens = SpecialTokens(255, frozenset({2}), frozenset({0, 1, 2, 255}), frozenset())
    grammar = compile_grammar(Regex("w10 w1[12]"), read_vocabulary(PARITY / "llava15", tokens, model_ids=256))
    walk = grammar.walk(ignore_eos=False)
    assert allowed(walk.mask) == [10]
    walk.take(10)
    assert allowed(walk.mask) == [11, 12]
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_vocabulary(tmp_path, tokens, model_ids=256)


def test_tokens_that_the_model_has_no_logit_for_never_come() -> None:
    tokens = SpecialTokens(IMAGE, frozenset({END}), frozenset(range(5)), frozenset())
    tokenizer = TOKENIZERS["byte_level"]()
    whole, cut = (make_vocabulary(tokenizer, tokens, model_ids=ids) for ids in (None, 200))
    assert max(allowed(compile_grammar(Regex("(?s:.*)"), whole).walk(ignore_eos=True).mask)) >= 200
    assert max(allowed(compile_grammar(Regex("(?s:.*)"), cut).walk(ignore_eos=True).mask)) == 199
