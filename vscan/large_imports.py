"""Imports of large libraries, kept out of the way of the garbage collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def large_imports() -> Iterator[None]:
    """What is imported within is never walked by the garbage collector, neither meanwhile nor later.

    torch and transformers make some 400,000 objects that stay. The collector would walk them again and again while they come,
    a fifth of a service's time to start; and at each full collection later, for which every request then waits a quarter of
    a second.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()
