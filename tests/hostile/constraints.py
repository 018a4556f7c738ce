"""JSON schemas and regular expressions that would take for ever, or reach for what is not theirs."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from grpc import StatusCode

from tests.hostile.case import ANSWERED, QUESTION, Case, Expected, Family, refused
from tests.support.asking import chat
from vscan.v1 import decoder_pb2 as pb

_SCHEMA, _REGEX = "sampling.json_schema", "sampling.regex"
_STATUSES = (StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.RESOURCE_EXHAUSTED)


def constraint_cases() -> list[Case]:
    """All of them."""
    return [*_schemas().cases, *_expressions().cases]


def _schemas() -> Family:
    family, bounded = Family("JSON schemas"), Expected(_STATUSES, _SCHEMA)
    refuse = refused(_SCHEMA)
    for name, text in {
        "not JSON": "{",
        "empty": " ",
        "a list": "[]",
        "NaN": '{"const": NaN}',
        "100,000 brackets": "[" * 16_000,
        "a number of 16,000 digits": '{"const": ' + "9" * 16_000 + "}",
        "an integer of 64 bits and one": '{"const": 18446744073709551616}',
        "1e999999": '{"const": 1e999999}',
        "a key twice": '{"type": "object", "type": "string"}',
        "a lone surrogate": '{"const": "\\ud800"}',
    }.items():
        family.call(name, partial(_schema, text), ANSWERED if name == "a key twice" else bounded)
    family.call("16,385 characters", partial(_schema, '{"a": "' + "x" * 16_400 + '"}'), refuse)
    family.call("60 MB", partial(_schema, " " * 60_000_000), refuse)
    ref: Any = {"$ref": "#"}
    for name, schema in {
        "refers to itself alone": ref,
        "refers to itself in all": {"allOf": [ref, ref]},
        "two that refer to each other": {
            "$ref": "#/$defs/a",
            "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        },
        "a tree without end": {"type": "object", "properties": {"a": ref, "b": ref}, "required": ["a", "b"]},
        "a remote reference": {"$ref": "http://127.0.0.1:9/schema.json"},
        "a file": {"$ref": "file:///etc/passwd"},
        "a doubling": _doubling(20),
        "an enum of 2,000": {"enum": [f"w{index}" for index in range(2000)]},
        "300 levels": _nested(300),
        "2^31 items": {"type": "array", "minItems": 2**31, "items": {"type": "null"}},
        "1,000 to 100,000 items": {"type": "array", "minItems": 1000, "maxItems": 100_000, "items": {"type": "integer"}},
        "a text of 10^9": {"type": "string", "minLength": 10**9},
        "a pattern that doubles": {"type": "string", "pattern": "^(a|aa)+(b|bb)+(c{1,999}){1,999}$"},
        "twenty patterns at once": {"allOf": [{"type": "string", "pattern": f".*a.{{{n}}}b"} for n in range(20)]},
        "one of 100": {"oneOf": [{"type": "integer", "multipleOf": n} for n in range(1, 101)]},
        "all but everything": {"not": {}},
        "nothing may be": {"enum": []},
        "the library's own options": {"x-guidance": {"whitespace_pattern": "(a*)*", "lenient": True}, "type": "object"},
        "a grammar within": {"%grammar": 'start: "a" start'},
    }.items():
        family.call(name, partial(_schema, json.dumps(schema)), bounded)
    return family


def _expressions() -> Family:
    family, bounded = Family("regular expressions"), Expected(_STATUSES, _REGEX)
    for name, pattern in {
        "nested stars": "(a*)*(a*)*(a*)*b",
        "alternatives that overlap": "(a|a|aa)+" * 30 + "b",
        "counts of counts": "((((a{1,100}){1,100}){1,100}){1,100}){1,100}",
        "a{4000000000}": "a{4000000000}",
        "a count of 99,999": "(ab){99999}",
        "5,000 groups": "(" * 5000 + "a" + ")" * 5000,
        "5,000 alternatives": "|".join(f"w{index}" for index in range(3000)),
        "every character, often": r"[\p{L}\p{N}]{500}\p{Greek}{500}",
        "the same from behind": ".*a.{60}",
        "a look behind": "(?<=a)b",
        "a back reference": r"(a)\1",
        "no end": "(",
        "a class without end": "[",
        "nothing at all can match": "[^\\x00-\\x{10FFFF}]",
        "NUL": "\\x00+",
        "bytes": "(?-u:\\xff)",
        "white space of the pattern": "(?x) a   b # c",
        "not, and": "~(a*)&(b*)",
    }.items():
        family.call(name, partial(_regex, pattern), bounded)
    family.call("16,385 characters", partial(_regex, "a" * 16_385), refused(_REGEX))
    family.call("empty", partial(_regex, ""), refused(_REGEX))
    return family


def _doubling(levels: int) -> dict[str, Any]:
    """Each level names the next one twice: a million leaves in a few lines."""
    defs: dict[str, Any] = {f"d{level}": _pair(level + 1) for level in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": defs | {f"d{levels}": {"type": "null"}}}


def _pair(level: int) -> dict[str, Any]:
    both = {"$ref": f"#/$defs/d{level}"}
    return {"type": "object", "properties": {"a": both, "b": both}, "required": ["a", "b"]}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, "minItems": 1}
    return schema


def _schema(text: str) -> pb.GenerateRequest:
    return chat(QUESTION, json_schema=text, max_new_tokens=4)


def _regex(pattern: str) -> pb.GenerateRequest:
    return chat(QUESTION, regex=pattern, max_new_tokens=4)
