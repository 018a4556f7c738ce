"""How the parts measure what the engine serves; `bench.timing` has the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence

from decoder_service.engine import Engine
from decoder_service.request import EngineRequest


def serve(engine: Engine, requests: Sequence[EngineRequest]) -> float:
    """Seconds until all are answered."""
    start = time.perf_counter()
    for request in requests:
        engine.add(request, accepted_s=start)
    while not engine.idle:
        engine.step()
    return time.perf_counter() - start
