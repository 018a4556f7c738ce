"""What the processes hold, looked at once a second."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio

from tests.faults.deployment import ENCODE, GENERATE, LEASES
from tests.support.prometheus import Figures, read_figures
from tests.support.redis_server import RedisServer
from tests.support.service_process import ServiceProcess

Held = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large each cache may become; full at `FULL_SHARE` of it."""

    encoder_cache_bytes: int
    decoder_cache_bytes: int
    redis_bytes: int


FULL_SHARE = 0.8


@dataclass(slots=True)
class Watch:
    """Looks at both services and their Redis."""

    encoder: ServiceProcess
    decoder: ServiceProcess
    redis: RedisServer
    metrics_ports: Mapping[str, int]

    async def look(self) -> Held:
        """One sample: `encoder rss_anon_bytes`, …; `at_s` on the monotonic clock."""
        held: dict[str, float] = {"at_s": time.monotonic()}
        for process in (self.encoder, self.decoder):
            figures = await asyncio.to_thread(read_figures, self.metrics_ports[process.kind])
            own = {"rss_anon_bytes": rss_anon_bytes(process.pid), "open_files": open_files(process.pid)}
            held |= {f"{process.kind} {name}": value for name, value in (own | _of_service(figures)).items()}
        async with redis.asyncio.Redis(port=self.redis.port) as client:
            memory = await client.info("memory")
            held["redis used_bytes"] = memory["used_memory"]
            held["redis leases"] = len([key async for key in client.scan_iter(LEASES, count=1000)])
        return held

    async def until(self, condition: Callable[[Held], bool], within_seconds: float) -> Held:
        """Looks until a sample is as it should be, or the time is over: the last sample."""
        deadline_s = time.monotonic() + within_seconds
        while True:
            held = await self.look()
            if condition(held) or time.monotonic() > deadline_s:
                return held
            await asyncio.sleep(0.5)


HELD_FOR_SOMEBODY = (
    "encoder calls",
    "encoder waiting",
    "decoder calls",
    "decoder waiting",
    "decoder running",
    "decoder held_pages",
    "redis leases",
)


def _of_service(figures: Figures) -> dict[str, float]:
    pages = {state: figures.total("vscan_decoder_kv_pages", vscan_page_state=state) for state in ("held", "idle", "free")}
    return {
        "calls": figures.total("vscan_requests_running", rpc_method=GENERATE)
        + figures.total("vscan_requests_running", rpc_method=ENCODE),
        "waiting": figures.total("vscan_encoder_waiting") + figures.total("vscan_decoder_waiting"),
        "running": figures.total("vscan_decoder_running"),
        "held_pages": pages["held"],
        "pages_used": 1 - pages["free"] / (sum(pages.values()) or 1),
        "cache_bytes": figures.total("vscan_cache_memory_bytes"),
        "tasks": figures.total("vscan_process_tasks"),
        "threads": figures.total("vscan_process_threads"),
    }


def rss_anon_bytes(pid: int) -> int:
    """Memory of the process' own: mapped files, as a checkpoint's, do not count."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def open_files(pid: int) -> int:
    """Descriptors that the process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
