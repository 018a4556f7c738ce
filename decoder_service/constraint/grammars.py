"""The grammars of a decoder: compiled away from the event loop and from the engine's thread, and remembered."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from functools import partial

from decoder_service.constraint.grammar import Grammar, compile_grammar, field_of, trial_source
from decoder_service.constraint.trial import Triers
from decoder_service.constraint.turns import Turns
from decoder_service.constraint.vocabulary import Vocabulary
from vscan.errors import InvalidArgument, ResourceExhausted, VScanError
from vscan.specs import Constraint

_THREADS = 2
_MAX_BEING_MADE = 16  # of one tenant
_RETRY_MS = 500

# The tenant, and what it asks for: how long an answer takes tells nobody what others have asked for.
_Key = tuple[str, Constraint]


class Grammars:
    """Belongs to one event loop.

    Args:
        max_compile_ms: longest wait for one; who comes again later finds it made.
        max_remembered: the least recently used are forgotten first.
    """

    def __init__(self, vocabulary: Vocabulary, *, max_compile_ms: int, max_remembered: int) -> None:
        self._vocabulary = vocabulary
        self._max_compile_ms = max_compile_ms
        self._max_remembered = max_remembered
        self._triers = Triers(_THREADS)
        self._turns: Turns[Grammar] = Turns(_THREADS, "grammar")
        self._made: OrderedDict[_Key, Grammar] = OrderedDict()
        self._being_made: dict[_Key, asyncio.Future[Grammar]] = {}

    async def get(self, constraint: Constraint, *, tenant: str) -> Grammar:
        """The grammar; whoever asks for the same at the same time shares the work.

        Raises:
            InvalidArgument: what `compile_grammar` raises.
            ResourceExhausted: it takes too long, or too many are being made.
        """
        key = (tenant, constraint)
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        making = self._being_made.get(key) or self._begin(key)
        try:
            async with asyncio.timeout(self._max_compile_ms / 1e3):
                return await asyncio.shield(making)
        except TimeoutError:
            reason = f"{field_of(constraint)}: not compiled within {self._max_compile_ms} ms"
            raise ResourceExhausted(reason, retry_delay_ms=_RETRY_MS) from None
        except VScanError as error:
            raise error.copy() from None  # several may wait for the same

    def close(self) -> None:
        """Compiles no more; does not wait for what is under way."""
        self._turns.close()
        self._triers.close()

    def _begin(self, key: _Key) -> asyncio.Future[Grammar]:
        tenant, constraint = key
        if sum(each == tenant for each, _ in self._being_made) >= _MAX_BEING_MADE:
            reason = f"{_MAX_BEING_MADE} constraints are being compiled"
            raise ResourceExhausted(reason, retry_delay_ms=_RETRY_MS)
        making = self._turns.run(tenant, partial(self._make, constraint))
        self._being_made[key] = making
        making.add_done_callback(lambda made: self._keep(key, made))
        return making

    def _make(self, constraint: Constraint) -> Grammar:
        """In a thread, which nothing can stop: so only what was seen to come to an end is begun."""
        tried_ms = max(1, self._max_compile_ms // 2)  # the other half is for compiling it here
        if not self._triers.passes(trial_source(constraint), tried_ms):
            raise InvalidArgument(field_of(constraint), "too complex", limit=f"{tried_ms} ms of a processor")
        return compile_grammar(constraint, self._vocabulary)

    def _keep(self, key: _Key, made: asyncio.Future[Grammar]) -> None:
        del self._being_made[key]
        if made.cancelled() or made.exception() is not None:
            return
        self._made[key] = made.result()
        while len(self._made) > self._max_remembered:
            self._made.popitem(last=False)
