"""Cores, processor time and what the machine is. Linux."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_VERSIONS_OF = ("vscan-serve", "torch", "transformers", "grpcio", "protobuf", "redis", "httpx2")


@dataclass(frozen=True, slots=True)
class Cores:
    """Who computes where: every configuration of a comparison has the same.

    0 1 2 3 → decoder 0 1, rest 2 3        0 → both 0
    """

    decoder: tuple[int, ...]
    rest: tuple[int, ...]  # the encoder, Redis, and the generator of the load

    @classmethod
    def of_this_machine(cls) -> Cores:
        """The first half of the cores that this process may use, and the others."""
        cores = sorted(os.sched_getaffinity(0))
        half = max(1, len(cores) // 2)
        return cls(tuple(cores[:half]), tuple(cores[half:] or cores))

    @property
    def all(self) -> tuple[int, ...]:
        """Both."""
        return tuple(sorted({*self.decoder, *self.rest}))

    @property
    def threads(self) -> dict[str, dict[str, str]]:
        """Settings of the services: as many threads of an operation as its cores. More would wait for one another."""
        return {"decoder": {"torch_threads": f"{len(self.decoder)}"}, "encoder": {"torch_threads": f"{len(self.rest)}"}}

    def to_json(self) -> dict[str, list[int]]:
        """The report's form."""
        return {"decoder": list(self.decoder), "encoder, Redis and load": list(self.rest)}


def pin(pid: int, cores: tuple[int, ...]) -> None:
    """Keeps a process to these cores: every thread it has, and so those that they start."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), cores)


def busy_s(pid: int) -> float | None:
    """Processor seconds of a process so far; `None` where it is gone.

    Its own clock, by the numbering of Linux (clock_getcpuclockid): /proc counts in hundredths of a second.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return None


def environment() -> dict[str, Any]:
    """Processor, cores and versions. Loads none of the libraries."""
    return {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: _version(name) for name in _VERSIONS_OF},
    }


def _processor() -> str:
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
