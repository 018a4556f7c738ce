"""Faults of a step: whose they are, and what is left to the others.

    a, b, c run together    ──▶ nobody's in particular: a, b and c run again, each alone ──▶ only who fails alone has failed
    ranking b fails         ──▶ b's own: a and c go on in the same step

Running again is right because a step leaves nothing behind that running it changes: its rows are not held until it is over, and
are written where the first attempt wrote them; what a ranking decided is taken back; a sampled token is taken last of all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from decoder_service.runner.batch import Part
from vscan.errors import InternalError, ResourceExhausted

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MEMORY_RETRY_MS = 1000
_CPU_OUT_OF_MEMORY = "can't allocate memory"  # torch has no type of its own for it


class DeviceLost(Exception):
    """The accelerator does not come back within this process."""


def fault_of(error: Exception) -> Exception:
    """`error` as callers are told of it: a lack of memory has a type of its own.

    Raises:
        DeviceLost: the device is gone for good, which is nobody's own fault.
    """
    if isinstance(error, DeviceLost):
        raise error
    if isinstance(error, torch.AcceleratorError):
        raise DeviceLost(str(error)) from error
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if out_of_memory or (isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)):
        logger.warning("a step was out of memory: %s", error)
        return ResourceExhausted("the device is out of memory", retry_delay_ms=_MEMORY_RETRY_MS)
    return error


def not_finite(what: str) -> InternalError:
    """What the model computed of a request is no number: `what`, in the plural."""
    return InternalError(f"the model's {what} for this request are not finite numbers")


def run_apart(run: Callable[[Sequence[Part]], T], parts: Sequence[Part]) -> list[tuple[Sequence[Part], T | Exception]]:
    """Runs the parts together; if that fails, each alone. What came of whom: a result, or what failed.

    Raises:
        DeviceLost: nothing can be run any more.
    """
    decided = [part.device.decided() for part in parts]
    try:
        return [(parts, run(parts))] if parts else []
    except Exception as error:
        if len(parts) == 1:
            return [(parts, fault_of(error))]
        fault_of(error)  # raises where running again is of no use; kept, it would keep the tensors of the step that failed
        logger.warning("a step of %d requests failed: each of them runs again alone", len(parts), exc_info=error)
    for part, before in zip(parts, decided, strict=True):
        part.device.take_back(before)
    return [done for part in parts for done in run_apart(run, [part])]
