"""What a library could be kept busy with for ever ends in a process of its own, within its bounds."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decoder_service.constraint import trial
from decoder_service.constraint.grammar import trial_source
from decoder_service.constraint.grammars import Grammars
from decoder_service.constraint.trial import Triers
from decoder_service.constraint.vocabulary import make_vocabulary
from decoder_service.language.tokens import SpecialTokens
from tests.support import tokenizers as kinds
from vscan.errors import InvalidArgument
from vscan.specs import JsonSchema, Regex

# Each kept llguidance busy for as long as it was let, with hundreds of megabytes more each second.
ENDLESS: dict[str, dict[str, Any]] = {
    "patterns that must all hold": {"allOf": [{"type": "string", "pattern": f".*a.{{{n}}}b"} for n in range(20)]},
    "multiples of two numbers": {"allOf": [{"type": "integer", "multipleOf": 9973}, {"type": "integer", "multipleOf": 9967}]},
}


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
async def test_what_never_ends_is_refused_and_the_next_is_compiled(schema: dict[str, Any]) -> None:
    tokens = SpecialTokens(4, frozenset({2}), frozenset(range(5)), frozenset())
    vocabulary = make_vocabulary(kinds.byte_level().backend_tokenizer, tokens)
    grammars = Grammars(vocabulary, max_compile_ms=600, max_remembered=8)
    try:
        refused = await asyncio.gather(
            *(grammars._begin((tenant, JsonSchema(json.dumps(schema)))) for tenant in "ab"), return_exceptions=True
        )
        assert [str(error) for error in refused] == ["sampling.json_schema: too complex, limit 300 ms of a processor"] * 2
        assert all(isinstance(error, InvalidArgument) for error in refused)
        assert (await grammars._begin(("a", Regex("[ab]{3}")))).first_texts.any()
    finally:
        grammars.close()


def test_memory_ends_a_trial_too() -> None:
    """With all the time there is."""
    source = trial_source(JsonSchema(json.dumps(ENDLESS["multiples of two numbers"])))
    triers = Triers(1)
    try:
        assert not triers.passes(source, 10**6)
        assert triers.passes(trial_source(Regex("a")), 10**6)
    finally:
        triers.close()


def test_a_trier_that_was_killed_is_made_again() -> None:
    triers = Triers(1)
    try:
        assert triers.passes(trial_source(Regex("a")), 5000)
        process = triers._all[0]._process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert triers.passes(trial_source(Regex("a")), 5000)
    finally:
        triers.close()


def test_a_trier_ends_with_the_one_that_asks() -> None:
    process = subprocess.Popen([sys.executable, str(Path(trial.__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0
