"""Tensors to the device and back, beside what it computes; and when it did what.

    uploads     pixels 1 | pixels 2          |
    computes             | batch 1           | batch 2 ...
    downloads                                | tokens 1
    marks                ^begun    ^between  ^copied

Nobody waits for the device but who wants results: `times_ns`. A CPU has computed a line when the next one begins.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from encoder_service.reduction.reduce import ReducedTiles
from encoder_service.vision.base import PreparedImage

# A moment: on a CPU nanoseconds of the wall clock, on a GPU an event.
Mark = Any


class DeviceQueue(ABC):
    """Belongs to the thread that gives the device its work, but for `staged` and `times_ns`."""

    @abstractmethod
    def staged(self, image: PreparedImage) -> PreparedImage:
        """The image as it is best uploaded. Safe to call from several threads."""

    @abstractmethod
    def uploaded(self, images: Sequence[PreparedImage]) -> list[PreparedImage]:
        """The images with their pixels on the device. What is computed from now on waits for them."""

    @abstractmethod
    def mark(self) -> Mark:
        """The moment when all work given so far is done."""

    @abstractmethod
    def downloaded(self, tiles: Sequence[ReducedTiles]) -> tuple[list[ReducedTiles], Mark]:
        """The tiles on the CPU, and the moment from which they are there."""

    @abstractmethod
    def is_gone(self) -> bool:
        """Whether the device does not come back, asked after a fault of it."""

    @abstractmethod
    def times_ns(self, marks: Sequence[Mark]) -> list[int]:
        """Waits for the last one, and says when they were, in nanoseconds of the wall clock."""


class CpuQueue(DeviceQueue):
    """Everything is where it is."""

    def staged(self, image: PreparedImage) -> PreparedImage:
        """As it is."""
        return image

    def uploaded(self, images: Sequence[PreparedImage]) -> list[PreparedImage]:
        """As they are."""
        return list(images)

    def mark(self) -> Mark:
        """Now."""
        return time.time_ns()

    def downloaded(self, tiles: Sequence[ReducedTiles]) -> tuple[list[ReducedTiles], Mark]:
        """As they are, now."""
        return list(tiles), self.mark()

    def is_gone(self) -> bool:
        """It has no faults of that kind."""
        return True

    def times_ns(self, marks: Sequence[Mark]) -> list[int]:
        """They are times."""
        return list(marks)


class CudaQueue(DeviceQueue):
    """Copies have streams of their own."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self._device = device
        self._dtype = dtype
        self._uploads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._downloads = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def staged(self, image: PreparedImage) -> PreparedImage:
        """In pinned memory, from which alone copies are made in the background; in the type that transformers round it to."""
        return replace(image, pixels=image.pixels.to(self._dtype).contiguous().pin_memory())

    def uploaded(self, images: Sequence[PreparedImage]) -> list[PreparedImage]:
        """Copied on a stream of their own: while another batch is computed."""
        computes = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._uploads):
            moved = [replace(image, pixels=image.pixels.to(self._device, non_blocking=True)) for image in images]
        for image in moved:
            image.pixels.record_stream(computes)  # their memory is not given to others before it was read there
        computes.wait_stream(self._uploads)
        return moved

    def mark(self) -> Mark:
        """An event of the stream that computes."""
        return self._event(torch.cuda.current_stream(self._device))

    def downloaded(self, tiles: Sequence[ReducedTiles]) -> tuple[list[ReducedTiles], Mark]:
        """Copied on a stream of their own, into pinned memory: while another batch is computed."""
        self._downloads.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._downloads):
            moved = [some.to("cpu", non_blocking=True) for some in tiles]
        for some in tiles:
            some.record_stream(self._downloads)
        return moved, self._event(self._downloads)

    def is_gone(self) -> bool:
        """It then fails whatever it is asked; where memory could not be pinned it does not."""
        try:
            torch.cuda.synchronize(self._device)
        except RuntimeError:
            return True
        return False

    def times_ns(self, marks: Sequence[Mark]) -> list[int]:
        """From how long before the last one they were."""
        marks[-1].synchronize()
        now = time.time_ns()
        return [now - round(mark.elapsed_time(marks[-1]) * 1e6) for mark in marks]

    def _event(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
        event.record(stream)
        return event


def device_queue(device: torch.device, dtype: torch.dtype) -> DeviceQueue:
    """The one for this device."""
    return CudaQueue(device, dtype) if device.type == "cuda" else CpuQueue()
