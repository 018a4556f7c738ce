"""Work on a device that is launched as one, instead of kernel by kernel from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


class GraphRecorder:
    """Makes CUDA graphs, by the recipe of torch's notes on them.

    They share their memory: of two that were recorded one after the other, the second may use what the first left free at its
    end. So the result of one is not valid once another has run, but for what others read that were recorded after it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        # One for all, and to run in before: libraries keep what they set up by stream.
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(self, work: Callable[[], T]) -> Callable[[], T]:
        """What runs `work` as a graph, and gives the same tensors each time. It runs first as it is, since libraries set
        themselves up then.
        """
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()
        current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Entering waits for the device. Other threads may use it: that spoils nothing of what this thread records.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = work()
        finally:
            torch.cuda.set_stream(current)  # a recording that fails leaves its own as the current one

        def replay() -> T:
            graph.replay()
            return result

        return replay
