"""The memory tier never holds more than its bound, and forgets what was used longest ago."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.visual_values import key, make_tokens, same
from vscan.cache.memory import ENTRY_OVERHEAD_BYTES, MemoryCache

VALUE = make_tokens()
SIZE = VALUE.nbytes + ENTRY_OVERHEAD_BYTES


def test_returns_what_was_put() -> None:
    cache = MemoryCache(10 * SIZE)
    assert cache.get(key("a")) is None
    assert cache.put(key("a"), VALUE)
    assert same(cache.get(key("a")), VALUE)
    assert cache.used_bytes == SIZE


def test_evicts_the_least_recently_used() -> None:
    cache = MemoryCache(3 * SIZE)
    for name in "abc":
        cache.put(key(name), VALUE)
    cache.get(key("a"))
    cache.put(key("d"), VALUE)
    assert [name for name in "abcd" if key(name) in cache] == ["a", "c", "d"]


def test_asking_whether_it_is_there_does_not_refresh() -> None:
    cache = MemoryCache(2 * SIZE)
    cache.put(key("a"), VALUE)
    cache.put(key("b"), VALUE)
    assert key("a") in cache
    cache.put(key("c"), VALUE)
    assert key("a") not in cache


def test_the_bound_is_reached_but_not_passed() -> None:
    cache = MemoryCache(2 * SIZE)
    for name in "abc":
        cache.put(key(name), VALUE)
    assert (len(cache), cache.used_bytes) == (2, 2 * SIZE)


def test_a_value_over_the_bound_is_not_stored_and_evicts_nothing() -> None:
    cache = MemoryCache(SIZE)
    cache.put(key("a"), VALUE)
    assert not cache.put(key("b"), make_tokens(hidden=10_000))
    assert (key("a") in cache, key("b") in cache) == (True, False)


def test_a_value_over_the_bound_leaves_no_older_one_in_its_place() -> None:
    cache = MemoryCache(SIZE)
    cache.put(key("a"), VALUE)
    assert not cache.put(key("a"), make_tokens(hidden=10_000))
    assert (cache.get(key("a")), cache.used_bytes) == (None, 0)


def test_replacing_counts_once() -> None:
    cache = MemoryCache(4 * SIZE)
    cache.put(key("a"), make_tokens(hidden=9))
    cache.put(key("a"), VALUE)
    assert (len(cache), cache.used_bytes) == (1, SIZE)


def test_no_room_at_all_turns_the_tier_off() -> None:
    assert not MemoryCache(0).put(key("a"), VALUE)


def test_a_slice_does_not_keep_its_batch_alive() -> None:
    batch = torch.randn(1000, 3, 8)
    cache = MemoryCache(10 * SIZE)
    cache.put(key("a"), replace(VALUE, tokens=batch[7]))
    held = cache.get(key("a"))
    assert held is not None
    assert torch.equal(held.tokens, batch[7])
    assert held.tokens.untyped_storage().nbytes() == held.tokens.nbytes


def test_clear_and_discard_give_the_bytes_back() -> None:
    cache = MemoryCache(10 * SIZE)
    for name in "abc":
        cache.put(key(name), VALUE)
    cache.discard(key("a"))
    cache.discard(key("a"))
    assert cache.used_bytes == 2 * SIZE
    cache.clear()
    assert (len(cache), cache.used_bytes) == (0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 60)), max_size=40), st.integers(0, 6 * SIZE))
def test_bytes_are_the_sum_of_what_is_held(puts: list[tuple[str, int]], bound: int) -> None:
    cache = MemoryCache(bound)
    for name, hidden in puts:
        cache.put(key(name), make_tokens(hidden=hidden))
        held = [cache.get(key(other)) for other in "abcdef"]
        assert cache.used_bytes == sum(value.nbytes + ENTRY_OVERHEAD_BYTES for value in held if value is not None)
        assert cache.used_bytes <= bound


@pytest.fixture
def restless_threads() -> Iterator[None]:
    """Threads change places as often as they can, so that a missing lock shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless_threads")
def test_threads_may_share_one() -> None:
    cache = MemoryCache(4 * SIZE)
    values = {name: make_tokens(seed) for seed, name in enumerate("abcdefgh")}

    def use(start: int) -> int:
        wrong = 0
        for step in range(100):
            name = "abcdefgh"[(start + step * 3) % 8]
            cache.put(key(name), values[name])
            found = cache.get(key("abcdefgh"[(start + step) % 8]))
            wrong += found is not None and not any(same(found, value) for value in values.values())
        return wrong

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 0
    assert cache.used_bytes == len(cache) * SIZE == 4 * SIZE
