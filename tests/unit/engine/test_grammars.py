"""Grammars are compiled once, away from the event loop, and remembered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from decoder_service.constraint import grammars as module
from decoder_service.constraint.grammar import Grammar, compile_grammar
from decoder_service.constraint.grammars import Grammars
from decoder_service.constraint.vocabulary import Vocabulary, make_vocabulary
from decoder_service.language.tokens import SpecialTokens
from tests.support import tokenizers as kinds
from vscan.errors import InvalidArgument, ResourceExhausted
from vscan.specs import Constraint, Regex


class Compiler:
    """The real one, counted, and held up on demand."""

    def __init__(self) -> None:
        self.asked: list[Constraint] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, constraint: Constraint, vocabulary: Vocabulary) -> Grammar:
        self.asked.append(constraint)
        self.entered.set()
        assert self.go_on.wait(60)
        return compile_grammar(constraint, vocabulary)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    own = Compiler()
    monkeypatch.setattr(module, "compile_grammar", own)
    return own


@pytest_asyncio.fixture
async def make(compiler: Compiler) -> AsyncIterator[Any]:
    vocabulary = make_vocabulary(
        kinds.byte_level().backend_tokenizer, SpecialTokens(4, frozenset({2}), frozenset(range(5)), frozenset())
    )
    made: list[Grammars] = []

    def make(*, max_compile_ms: int = 60_000, max_remembered: int = 8) -> Grammars:
        made.append(Grammars(vocabulary, max_compile_ms=max_compile_ms, max_remembered=max_remembered))
        return made[-1]

    yield make
    compiler.go_on.set()
    for grammars in made:
        grammars.close()


async def test_the_same_is_compiled_once(make: Any, compiler: Compiler) -> None:
    grammars = make()
    together = await asyncio.gather(*[grammars.get(Regex("a+"), tenant="t") for _ in range(5)])
    assert all(grammar is together[0] for grammar in together)
    assert await grammars.get(Regex("a+"), tenant="t") is together[0]
    assert compiler.asked == [Regex("a+")]


async def test_each_tenant_has_its_own(make: Any, compiler: Compiler) -> None:
    grammars = make()
    assert await grammars.get(Regex("a+"), tenant="t") is not await grammars.get(Regex("a+"), tenant="u")
    assert len(compiler.asked) == 2


async def test_the_least_recently_used_is_forgotten(make: Any, compiler: Compiler) -> None:
    grammars = make(max_remembered=2)
    for pattern in ("a", "b", "a", "c", "a", "b"):
        await grammars.get(Regex(pattern), tenant="t")
    assert compiler.asked == [Regex("a"), Regex("b"), Regex("c"), Regex("b")]


async def test_what_cannot_be_compiled_is_refused_each_time(make: Any, compiler: Compiler) -> None:
    grammars = make()
    for _ in range(2):
        with pytest.raises(InvalidArgument, match=r"^sampling\.regex: unclosed group"):
            await grammars.get(Regex("("), tenant="t")
    assert len(compiler.asked) == 2


async def test_who_waits_for_the_same_is_refused_by_an_error_of_their_own(make: Any, compiler: Compiler) -> None:
    grammars = make()
    asked = [grammars.get(Regex("("), tenant="t") for _ in range(3)]
    errors = await asyncio.gather(*asked, return_exceptions=True)
    assert len(compiler.asked) == 1
    assert [type(error) for error in errors] == [InvalidArgument] * 3
    assert len({id(error) for error in errors}) == 3


async def test_what_takes_too_long_is_found_made_later(make: Any, compiler: Compiler) -> None:
    grammars = make(max_compile_ms=1)
    compiler.go_on.clear()
    with pytest.raises(ResourceExhausted, match=r"^sampling\.regex: not compiled within 1 ms") as refusal:
        await grammars.get(Regex("a+"), tenant="t")
    assert refusal.value.retry_delay_ms == 500
    compiler.go_on.set()
    while True:  # made by the thread that was left alone with it
        try:
            await grammars.get(Regex("a+"), tenant="t")
            break
        except ResourceExhausted:
            continue
    assert compiler.asked == [Regex("a+")]


async def test_a_caller_that_leaves_does_not_end_the_work_of_others(make: Any, compiler: Compiler) -> None:
    grammars = make()
    compiler.go_on.clear()
    first, second = (asyncio.create_task(grammars.get(Regex("a+"), tenant="t")) for _ in range(2))
    assert await asyncio.to_thread(compiler.entered.wait, 60)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    compiler.go_on.set()
    assert (await second).field == "sampling.regex"
    assert len(compiler.asked) == 1


async def test_too_many_at_once_are_refused(make: Any, compiler: Compiler) -> None:
    grammars = make()
    compiler.go_on.clear()
    asked = [asyncio.create_task(grammars.get(Regex(f"a{number}"), tenant="t")) for number in range(16)]
    await asyncio.sleep(0)  # all of them have begun
    with pytest.raises(ResourceExhausted, match="16 constraints are being compiled"):
        await grammars.get(Regex("b"), tenant="t")
    compiler.go_on.set()
    assert len(await asyncio.gather(*asked)) == 16
    await grammars.get(Regex("b"), tenant="t")


async def test_one_tenants_many_keep_out_nobody_else(make: Any, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has asked for as many as it may leaves the next turn, and room to ask, to others."""
    monkeypatch.setattr(module, "_THREADS", 1)  # of several each tells of its work in its own time
    grammars = make()
    compiler.go_on.clear()
    asked = [asyncio.create_task(grammars.get(Regex(f"a{number}"), tenant="greedy")) for number in range(16)]
    await asyncio.sleep(0)
    other = asyncio.create_task(grammars.get(Regex("b"), tenant="other"))
    assert await asyncio.to_thread(compiler.entered.wait, 60)
    compiler.go_on.set()
    assert (await other).field == "sampling.regex"
    await asyncio.gather(*asked)
    assert compiler.asked.index(Regex("b")) == 2  # behind the one that had begun, and the one whose turn it was


async def test_who_waits_is_told_when_no_more_is_compiled(make: Any, compiler: Compiler) -> None:
    grammars = make()
    compiler.go_on.clear()
    asked = [asyncio.create_task(grammars.get(Regex(f"a{number}"), tenant="t")) for number in range(4)]
    assert await asyncio.to_thread(compiler.entered.wait, 60)
    grammars.close()
    for waiting in asked[2:]:
        with pytest.raises(asyncio.CancelledError):
            await waiting
    compiler.go_on.set()
    await asyncio.gather(*asked[:2], return_exceptions=True)  # their trials may have been ended too
