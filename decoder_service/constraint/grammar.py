"""A constraint, compiled for one vocabulary, and an answer's way through it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import numpy as np
from llguidance import LLMatcher

from decoder_service.constraint.trial import LIMITS
from decoder_service.constraint.vocabulary import TokenMask, Vocabulary
from vscan.errors import InvalidArgument
from vscan.specs import Constraint, JsonSchema, Regex

# Between two parts of a JSON value: enough to indent, too few to go on for ever.
_JSON_BLANKS = r"[ \n]{1,32}"
_LONGEST_REASON = 200
_TRIED_STEPS = 3


class Grammar:
    """Immutable; shared by all requests that ask for the same."""

    def __init__(self, matcher: LLMatcher, vocabulary: Vocabulary, *, field: str) -> None:
        """
        Raises:
            InvalidArgument: the vocabulary has no token with which such an answer could begin, or it is too complex.
        """
        self.field = field
        self.vocabulary = vocabulary
        self._matcher = matcher
        self.may_be_empty = matcher.is_accepting()
        self.first_texts = vocabulary.first_texts(matcher)
        if not self.first_texts.any():
            raise InvalidArgument(field, "this model's vocabulary has no token with which such an answer could begin")
        self._check_complexity()

    def walk(self, *, ignore_eos: bool) -> GrammarWalk:
        """Begins one answer."""
        return GrammarWalk(self, self._matcher.deep_copy(), ignore_eos=ignore_eos)

    def _check_complexity(self) -> None:
        """Goes a few steps: that an expression is too complex is not found out before."""
        walk = self.walk(ignore_eos=True)
        for _ in range(_TRIED_STEPS):
            if not walk.complete and walk.problem is None:
                walk.take(int(np.unpackbits(walk.mask, bitorder="little").argmax()))
        if walk.problem is not None and not walk.lacks_token:
            raise InvalidArgument(self.field, walk.problem.problem)


class GrammarWalk:
    """Owned by the engine's thread.

    Attributes:
        mask: tokens that may come next, the end-of-sequence tokens among them where the answer may end here.
        complete: nothing may follow: the answer is whole.
        problem: the answer cannot go on, and is not whole.
    """

    def __init__(self, grammar: Grammar, matcher: LLMatcher, *, ignore_eos: bool) -> None:
        self._grammar = grammar
        self._matcher = matcher
        self._ends_at_eos = not ignore_eos
        self.complete = False
        self.problem: InvalidArgument | None = None
        self.mask = self._with_ends(grammar.first_texts, grammar.may_be_empty)

    def take(self, token_id: int) -> None:
        """Goes on by a token of `mask`; one that ends the answer changes nothing."""
        if token_id in self._grammar.vocabulary.end_ids:
            return
        self._matcher.consume_token(token_id)
        may_end = self._matcher.is_accepting()
        texts = None if self._matcher.is_stopped() else self._grammar.vocabulary.texts_after(self._matcher)
        if texts is not None and texts.any():
            self.mask = self._with_ends(texts, may_end)
        elif may_end:
            self.complete = True
        else:
            self.problem = InvalidArgument(self._grammar.field, f"in the middle of the answer: {self._trouble()}")

    @property
    def lacks_token(self) -> bool:
        """Whether the vocabulary is what a `problem` is about."""
        error = self._matcher.get_error()
        return not error or error.startswith("NoExtension")

    def _trouble(self) -> str:
        if self.lacks_token:
            return "this model's vocabulary has no token that may follow"
        return self._matcher.get_error().splitlines()[0][:_LONGEST_REASON]

    def _with_ends(self, texts: TokenMask, may_end: bool) -> TokenMask:
        return self._grammar.vocabulary.with_ends(texts) if may_end and self._ends_at_eos else texts


def field_of(constraint: Constraint) -> str:
    """Where a request has it."""
    return "sampling.json_schema" if isinstance(constraint, JsonSchema) else "sampling.regex"


def trial_source(constraint: Constraint) -> str:
    """What is to be tried before it is compiled: as hard as what `compile_grammar` does, for any vocabulary.

    Raises:
        InvalidArgument: it cannot be read.
    """
    if isinstance(constraint, JsonSchema):
        return _plain_json_source(_schema(constraint.text))
    return str(LLMatcher.grammar_from_regex(_without_anchors(constraint.pattern)))


def compile_grammar(constraint: Constraint, vocabulary: Vocabulary) -> Grammar:
    """Compiles, in milliseconds; what would take much longer is refused.

    Raises:
        InvalidArgument: it cannot be read, asks for what is not supported, is too complex, or cannot be written with the
            vocabulary.
    """
    field = field_of(constraint)
    if isinstance(constraint, JsonSchema):
        source = _json_source(constraint.text, vocabulary)
    else:
        source = _regex_source(constraint, vocabulary)
    matcher = LLMatcher(vocabulary.library, source, log_level=0, limits=LIMITS)
    if matcher.is_error():
        _refuse(field, matcher.get_error())
    return Grammar(matcher, vocabulary, field=field)


def _json_source(text: str, vocabulary: Vocabulary) -> str:
    schema = _schema(text)
    if not vocabulary.drops_first_space:
        return _plain_json_source(schema)
    # The blank of the first word, which the answer's text will lack.
    schema = {"x-guidance": {"whitespace_pattern": _JSON_BLANKS}} | schema
    return str(LLMatcher.grammar_from_lark(f'start: " "? value\nvalue: %json {json.dumps(schema)}'))


def _schema(text: str) -> dict[str, Any]:
    try:
        schema = json.loads(text, parse_constant=_no_number)
        json.dumps(schema, ensure_ascii=False).encode()  # an escape may stand for half a character
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("sampling.json_schema", "not JSON") from error
    if not isinstance(schema, dict):
        raise InvalidArgument("sampling.json_schema", "not a JSON object")
    return schema


def _plain_json_source(schema: dict[str, Any]) -> str:
    try:
        return str(LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _JSON_BLANKS}))
    except ValueError as error:  # an integer of more than 64 bits
        raise InvalidArgument("sampling.json_schema", "a number that is too large") from error


def _regex_source(regex: Regex, vocabulary: Vocabulary) -> str:
    pattern = _without_anchors(regex.pattern)
    source = str(LLMatcher.grammar_from_regex(pattern))
    if not vocabulary.drops_first_space:
        return source
    is_error, messages = LLMatcher.validate_grammar_with_warnings(source, vocabulary.library, limits=LIMITS)
    if is_error:
        _refuse("sampling.regex", messages[0])
    return str(LLMatcher.grammar_from_regex(f"( )?(?:{pattern})"))


def _without_anchors(pattern: str) -> str:
    """Without `^` and `$` around it: the whole answer has to match anyhow."""
    pattern = pattern.removeprefix("^")
    escapes = len(pattern) - 1 - len(pattern[:-1].rstrip("\\"))
    return pattern[:-1] if pattern.endswith("$") and not escapes % 2 else pattern


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(field: str, message: str) -> NoReturn:
    """The library's reason on one line: what it says first, and for an expression what it says is wrong with it."""
    if "retrieving it failed" in message:  # the library says where it would have been
        raise InvalidArgument(field, "a reference to another document; those are not followed")
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["cannot be compiled"]
    wrong = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    raise InvalidArgument(field, wrong[:_LONGEST_REASON])
