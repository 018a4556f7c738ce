"""Requests and constraints: a question or grammar, or a refusal that names its field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from decoder_service.config import DecoderSettings
from decoder_service.constraint.grammar import compile_grammar, trial_source
from decoder_service.constraint.trial import Triers
from decoder_service.constraint.vocabulary import Vocabulary, make_vocabulary
from decoder_service.language.tokens import SpecialTokens
from decoder_service.limits import Limits
from decoder_service.question import read_question
from tests.support import tokenizers as kinds
from tests.support.asking import PICTURE, chat, raw
from tests.unit.fuzz import fuzzed, well_told
from tests.unit.fuzz.mutations import mutated
from vscan.errors import InvalidArgument
from vscan.rpc.wire_scan import check_fields
from vscan.specs import JsonSchema, Regex
from vscan.v1 import decoder_pb2 as pb

_LIMITS = Limits(
    max_positions=4096,
    **{
        name: getattr(DecoderSettings(model=Path()), name) or 4096
        for name in Limits.__dataclass_fields__
        if name != "max_positions"
    },
)
REQUESTS = [
    request.SerializeToString()
    for request in (
        chat(PICTURE[:40], "what is it", stop=["a"], stop_token_ids=[1, 2], temperature=0.5, n=2),
        chat("text", json_schema="{}", seed=3),
        chat(bytes(32), "text", regex="a+", logprobs=3),
        raw("text", PICTURE[:40]),
    )
]
_PIECES = [
    *("a", "b", ".", "*", "+", "?", "{2,9}", "{999}", "|", "(", ")", "[", "]", "[^"),
    *("\\d", "\\p{L}", "\\", "^", "$", "(?i)", "é", "\0"),
]
PATTERNS = st.lists(st.sampled_from(_PIECES), max_size=14).map("".join)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
_NAMES = st.sampled_from(
    [
        *(
            "type",
            "enum",
            "const",
            "properties",
            "required",
            "items",
            "prefixItems",
            "minItems",
            "maxItems",
            "pattern",
            "format",
        ),
        *("anyOf", "allOf", "oneOf", "$ref", "$defs", "additionalProperties", "minimum", "maximum", "multipleOf", "minLength"),
        *("maxLength", "pattern", "patternProperties", "not", "x-guidance"),
    ]
)
_TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean", "null", "#", "#/$defs/a", "uuid"])
SCHEMAS = st.recursive(
    _LEAVES | _TYPES | PATTERNS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES | st.text(max_size=3), inner, max_size=4),
    max_leaves=14,
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return make_vocabulary(
        kinds.byte_level().backend_tokenizer, SpecialTokens(4, frozenset({2}), frozenset(range(5)), frozenset())
    )


@pytest.fixture(scope="module")
def triers() -> Iterator[Triers]:
    made = Triers(1)
    yield made
    made.close()


@given(mutated(REQUESTS) | st.binary(max_size=200))
@fuzzed
def test_any_request_is_a_question_or_a_refusal(data: bytes) -> None:
    try:
        check_fields(data, pb.GenerateRequest.DESCRIPTOR, 16_384)
        question = read_question(pb.GenerateRequest.FromString(data), _LIMITS)
    except DecodeError:
        return
    except InvalidArgument as error:
        well_told(error, "")
    else:
        assert question.text_chars <= _LIMITS.max_text_chars


@given(st.dictionaries(_NAMES, SCHEMAS, max_size=5) | SCHEMAS)
@fuzzed
def test_any_schema_is_a_grammar_or_a_refusal(vocabulary: Vocabulary, triers: Triers, schema: object) -> None:
    _compiled(JsonSchema(json.dumps(schema)), vocabulary, triers)


@given(PATTERNS | st.text(max_size=20))
@fuzzed
def test_any_pattern_is_a_grammar_or_a_refusal(vocabulary: Vocabulary, triers: Triers, pattern: str) -> None:
    _compiled(Regex(pattern), vocabulary, triers)


def _compiled(constraint: JsonSchema | Regex, vocabulary: Vocabulary, triers: Triers) -> None:
    """As the service does it; what the trial does not let through is not begun."""
    try:
        if triers.passes(trial_source(constraint), 2000):
            compile_grammar(constraint, vocabulary).walk(ignore_eos=False)
    except InvalidArgument as error:
        well_told(error, "sampling.")
