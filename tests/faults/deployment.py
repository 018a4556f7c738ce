"""Encoder, decoder, Redis and a collector as processes of their own, with a proxy on each way between them.

    client ─▶ (to_decoder) ─▶ decoder ─▶ to_encoder ─▶ encoder
                                 └──────┬──────────────┘
                            to_redis, to_collector

Clients take the proxy only where that way is cut. Redis' entries expire after a second and no service remembers any, so that
all the time some images are found in Redis, some are encoded, and some are asked for by several clients at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio

from tests.faults.clock import Clock, Clocks
from tests.faults.collector import CollectorProcess
from tests.faults.disk import SmallDisk, small_disk
from tests.support.fault_proxy import FaultProxy
from tests.support.prometheus import Figures, read_figures
from tests.support.redis_server import RedisServer, free_port
from tests.support.service_process import ServiceProcess
from tests.support.until import until

LEASES = "vscan:lease:*"
_TTL_SECONDS = 1
_SERVICES = ("encoder", "decoder")
COMPONENTS = (*_SERVICES, "redis", "collector")
_OFTEN = {"OTEL_BSP_SCHEDULE_DELAY": "200", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}


@dataclass(slots=True)
class Deployment:
    """All of it, ready."""

    encoder: ServiceProcess
    decoder: ServiceProcess
    redis: RedisServer
    collector: CollectorProcess
    to_decoder: FaultProxy
    to_encoder: FaultProxy
    to_redis: FaultProxy
    to_collector: FaultProxy
    disks: Mapping[str, SmallDisk]
    clocks: Mapping[str, Clock]  # empty where clocks cannot be moved

    def process(self, component: str) -> ServiceProcess | RedisServer:
        """The process of a component."""
        found: ServiceProcess | RedisServer = getattr(self, component)
        return found

    def proxy(self, way: str) -> FaultProxy:
        """The one in front of a component."""
        found: FaultProxy = getattr(self, f"to_{way}")
        return found

    async def figures(self, component: str) -> Figures:
        """What a service counts."""
        return await asyncio.to_thread(read_figures, metrics_port(self.process(component)))

    async def redis_errors(self) -> float:
        """Operations on Redis that failed, as both services count them."""
        return sum([(await self.figures(each)).total("vscan_redis_errors_total") for each in _SERVICES])

    async def until_idle(self) -> None:
        """Waits until nothing is held for anybody. Raises AssertionError, naming what is, if that does not come."""
        for component in _SERVICES:
            await until(lambda each=component: self._is_idle(each), what=f"{component}: nobody is served")  # type: ignore[misc]
        async with redis.asyncio.Redis(port=self.redis.port) as client:

            async def no_lease() -> bool:
                return not [key async for key in client.scan_iter(LEASES)]

            await until(no_lease, what="no lease is left in Redis")

    async def _is_idle(self, component: str) -> bool:
        try:
            figures = await self.figures(component)
        except OSError:
            return False  # not up again yet
        busy = figures.total("vscan_requests_running", rpc_method=GENERATE if component == "decoder" else ENCODE)
        queued = sum(figures.total(f"vscan_{component}_{state}") for state in ("waiting", "running"))
        held = figures.total("vscan_decoder_kv_pages", vscan_page_state="held")
        return busy == queued == held == 0


GENERATE, ENCODE = "/vscan.v1.Decoder/Generate", "/vscan.v1.VisionEncoder/Encode"


def metrics_port(process: Any) -> int:
    """Where a service serves its figures."""
    return int(process.settings["metrics_bind"].rpartition(":")[2])


@asynccontextmanager
async def deployment(folder: Path, *, movable_clocks: bool = False) -> AsyncIterator[Deployment]:
    """Starts it, and ends all that it started. `folder` is for logs and disks."""
    async with AsyncExitStack() as stack:
        disks = {each: stack.enter_context(small_disk(folder / each)) for each in COMPONENTS}
        movable = Clocks(folder) if movable_clocks else None
        clocks = {each: movable.of(each) for each in COMPONENTS} if movable else {}
        environment = {each: clocks[each].environment() if clocks else {} for each in COMPONENTS}
        redis_options = ["--dir", str(disks["redis"].folder)]
        redis_server = RedisServer(options=redis_options, environment=environment["redis"])
        collector = CollectorProcess(disks["collector"].folder, environment["collector"])
        for server in (redis_server, collector):
            stack.callback(server.stop)
            await asyncio.to_thread(server.start)
        to_redis = await stack.enter_async_context(FaultProxy(redis_server.port))
        to_collector = await stack.enter_async_context(FaultProxy(collector.port))
        encoder_port, decoder_port = free_port(), free_port()
        to_encoder = await stack.enter_async_context(FaultProxy(encoder_port))
        to_decoder = await stack.enter_async_context(FaultProxy(decoder_port))
        shared = {
            "redis_url": to_redis.url,
            "otlp_endpoint": f"http://127.0.0.1:{to_collector.port}",
            "cache_ttl_seconds": _TTL_SECONDS,
            "cache_memory_bytes": 0,
            "torch_threads": 1,
            "log_format": "json",
        }
        encoder = ServiceProcess("encoder", disks["encoder"].folder, shared, environment=_OFTEN | environment["encoder"])
        of_decoder = shared | {"encoder_address": f"127.0.0.1:{to_encoder.port}"}
        decoder = ServiceProcess("decoder", disks["decoder"].folder, of_decoder, environment=_OFTEN | environment["decoder"])
        for process, port in ((encoder, encoder_port), (decoder, decoder_port)):
            process.address = f"127.0.0.1:{port}"
            process.settings["metrics_bind"] = f"127.0.0.1:{free_port()}"
            stack.push_async_callback(asyncio.to_thread, process.stop)
            process.launch()
        for process in (encoder, decoder):
            await asyncio.to_thread(process.wait_ready)
        yield Deployment(
            encoder, decoder, redis_server, collector, to_decoder, to_encoder, to_redis, to_collector, disks, clocks
        )
