"""Durations on the device: a CUDA kernel is only queued when its call returns, so there events are recorded in its stream."""

from __future__ import annotations

import time
from typing import Any

import torch


class DeviceClock:
    """Marks moments and measures between them."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def mark(self) -> Any:
        """A moment, for `ms_between`."""
        if not self._cuda:
            return time.perf_counter()
        event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def ms_between(self, start: Any, end: Any) -> float:
        """Milliseconds from one mark to a later one. On CUDA it waits until the device is there."""
        if not self._cuda:
            return float((end - start) * 1000.0)
        end.synchronize()
        return float(start.elapsed_time(end))
