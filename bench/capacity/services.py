"""Redis, encoders and decoders as processes, each kept to one core, and how much processor time each has had.

A replica of the measured profile is a process with one core. On a machine with two, decoders share the first and everything
else (encoders, Redis, whoever asks) the second; the simulation is told so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.prometheus import read_figures
from tests.support.redis_server import RedisServer, free_port
from tests.support.service_process import ServiceProcess

_ONE_THREAD = {"torch_threads": 1, "drain_seconds": 0, "cache_ttl_seconds": 3600, "redis_timeout_ms": 5000}
_ENCODER = {"image_workers": 1}
_IMAGES = "vscan_encoder_batch_images_sum"
_PASSES = "vscan_encoder_batch_images_count"
_BUSY_COLUMNS = (1, 2, 3, 6, 7, 8)  # of /proc/stat: user, nice, system, interrupts, softer ones, stolen


@dataclass(frozen=True, slots=True)
class Services:
    """All of them, ready."""

    redis: RedisServer
    encoders: Sequence[ServiceProcess]
    decoders: Sequence[ServiceProcess]
    cores: tuple[int, int]

    @property
    def addresses(self) -> list[str]:
        """Of the decoders, as a client is given them."""
        return [decoder.address for decoder in self.decoders]

    def images_encoded(self) -> int:
        """Images that went through the vision transformers, warming up included."""
        return round(sum(read_figures(_metrics_port(each)).total(_IMAGES) for each in self.encoders))

    def passes(self) -> int:
        """Device passes that they took."""
        return round(sum(read_figures(_metrics_port(each)).total(_PASSES) for each in self.encoders))

    def busy_s(self) -> dict[str, float]:
        """Processor seconds so far: of all decoders, of all encoders, of Redis, and of this process."""
        return {
            "decoder": sum(_busy_s(each.pid) for each in self.decoders),
            "encoder": sum(_busy_s(each.pid) for each in self.encoders),
            "redis": _busy_s(self.redis.pid),
            "client": time.process_time(),
        }


def machine_busy_s(cores: Sequence[int]) -> float:
    """Processor seconds so far of everybody on these cores, time that a hypervisor gave to others included."""
    names = {f"cpu{core}" for core in cores}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    ticks = sum(int(line[place]) for line in lines if line[0] in names for place in _BUSY_COLUMNS)
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def services(
    folder: Path,
    model: Path,
    *,
    encoders: int = 1,
    decoders: int = 1,
    encoder: Mapping[str, Any] | None = None,
    decoder: Mapping[str, Any] | None = None,
) -> Iterator[Services]:
    """Starts them with one torch thread each, and ends all that it started. `encoder` and `decoder` are further settings."""
    first, second = _cores()
    with ExitStack() as stack:
        with kept_to(second):
            redis = stack.enter_context(RedisServer())
            shared = _ONE_THREAD | {"model": model, "redis_url": redis.url}
            encoding = [
                _started(stack, "encoder", folder / f"encoder-{n}", shared | _ENCODER | dict(encoder or {}))
                for n in range(encoders)
            ]
        where = (
            {}
            if not encoding
            else {
                "encoder_address": "ipv4:" + ",".join(each.address for each in encoding)
                if encoders > 1
                else encoding[0].address
            }
        )
        with kept_to(first):
            decoding = [
                _started(stack, "decoder", folder / f"decoder-{n}", shared | where | dict(decoder or {}))
                for n in range(decoders)
            ]
        for process in (*encoding, *decoding):
            process.wait_ready()
        with kept_to(second):
            yield Services(redis, encoding, decoding, (first, second))


def kv_pages(decoder: ServiceProcess) -> int:
    """Pages of a decoder's KV cache."""
    return round(read_figures(_metrics_port(decoder)).total("vscan_decoder_kv_pages"))


@contextmanager
def kept_to(core: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, runs on one core alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cores() -> tuple[int, int]:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise ValueError("needs two cores: one for decoders, one for the rest")
    return cores[0], cores[1]


def _started(stack: ExitStack, kind: str, folder: Path, settings: dict[str, Any]) -> ServiceProcess:
    folder.mkdir(parents=True)
    process = ServiceProcess(kind, folder, settings | {"metrics_bind": f"127.0.0.1:{free_port()}"})
    stack.callback(process.stop)
    process.start()
    return process


def _metrics_port(process: ServiceProcess) -> int:
    return int(process.settings["metrics_bind"].rpartition(":")[2])


def _busy_s(pid: int) -> float:
    """Processor time of another process: its clock, by the numbering of Linux (clock_getcpuclockid)."""
    return time.clock_gettime(~pid << 3 | 2)
