"""The collector is off while a library is imported, and does not walk it afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from vscan.large_imports import large_imports


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.mark.parametrize("collects", [True, False])
def test_it_is_as_before_once_they_came(collects: bool) -> None:
    (gc.enable if collects else gc.disable)()
    try:
        with large_imports():
            assert not gc.isenabled()
            made: list[list[int]] = [[] for _ in range(5)]
        assert gc.isenabled() == collects
    finally:
        gc.enable()
    assert gc.get_freeze_count() >= len(made)
    assert not any(each is made for each in gc.get_objects())


def test_an_import_that_fails_leaves_it_on() -> None:
    with pytest.raises(ImportError), large_imports():
        raise ImportError
    assert gc.isenabled()
