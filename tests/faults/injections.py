"""The faults: each is a context that breaks something, and mends it when it is left. `Held` keeps what proves it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis.asyncio

from tests.faults import clock
from tests.faults.deployment import COMPONENTS, Deployment
from tests.faults.disk import can_mount
from tests.faults.request_log import RequestLog
from tests.support.fault_proxy import Fault as Way
from tests.support.service_process import ServiceProcess
from tests.support.until import until

_DEAD_SECONDS = 1.0  # until a supervisor starts it again
_JUMP_SECONDS = 2 * 3600
_PAGE_BYTES = 4096
_SERVICES = ("encoder", "decoder")


@dataclass(slots=True)
class Held:
    """What was seen of the fault while it lasted, by name. All must be true, or over 0."""

    signs: dict[str, float] = field(default_factory=dict)


Inject = Callable[[Deployment, Held, float], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one component.

    Attributes:
        inject: a context; its last argument is how long the fault lasts, in seconds.
        by_proxy: clients reach the decoder by the proxy.
        moves_clocks: needs a deployment whose clocks can be moved.
        root: needs root.
        loses_log: lines of the decoder's log may be missing.
    """

    name: str
    component: str
    inject: Inject
    by_proxy: bool = False
    moves_clocks: bool = False
    root: bool = False
    loses_log: bool = False

    @property
    def obstacle(self) -> str:
        """Why it cannot be had here; empty if it can."""
        if self.root and not can_mount():
            return "needs root"
        if self.moves_clocks and clock.compiler() is None:
            return "needs a C compiler"
        return ""


@asynccontextmanager
async def kill(component: str, deployment: Deployment, held: Held, lasts_s: float) -> AsyncIterator[None]:
    """SIGKILL; a supervisor starts it again a moment later, at the same address."""
    process = deployment.process(component)
    dead = process.pid
    process.kill()
    held.signs["killed"] = not _exists(dead)
    try:
        await asyncio.sleep(min(lasts_s, _DEAD_SECONDS))
        yield
    finally:
        if isinstance(process, ServiceProcess):
            process.launch()
        else:
            await asyncio.to_thread(process.start)


@asynccontextmanager
async def stop(component: str, deployment: Deployment, held: Held, lasts_s: float) -> AsyncIterator[None]:
    """SIGSTOP, then SIGCONT."""
    process = deployment.process(component)
    process.pause()
    try:
        await asyncio.sleep(lasts_s)
        held.signs["stopped"] = _state_of(process.pid) == "T"
        yield
    finally:
        process.resume()


@asynccontextmanager
async def partition(way: str, deployment: Deployment, held: Held, lasts_s: float) -> AsyncIterator[None]:
    """What is sent to a component arrives nowhere, and nobody is told."""
    proxy = deployment.proxy(way)
    before = proxy.swallowed
    proxy.inject(Way.BLACK_HOLE)
    try:
        await asyncio.sleep(lasts_s)
        held.signs["packets_swallowed"] = proxy.swallowed - before
        yield
    finally:
        proxy.heal()


@asynccontextmanager
async def redis_disk_full(deployment: Deployment, held: Held, lasts_s: float) -> AsyncIterator[None]:
    """Redis cannot save, and so takes no writes."""
    disk = deployment.disks["redis"]
    async with redis.asyncio.Redis(port=deployment.redis.port) as client:
        disk.fill()
        await client.config_set("save", "1 1")

        async def refuses() -> bool:
            return bool((await client.info("persistence"))["rdb_last_bgsave_status"] == "err")

        try:
            await until(refuses, what="Redis failed to save")
            await asyncio.sleep(lasts_s)
            held.signs["refused_writes"] = await _refused_write(client)
            yield
        finally:
            disk.empty()
            await client.config_set("save", "")
            await client.bgsave()


@asynccontextmanager
async def log_disk_full(component: str, deployment: Deployment, held: Held, lasts_s: float) -> AsyncIterator[None]:
    """A service's log and its other files have no space left."""
    disk, log = deployment.disks[component], RequestLog(deployment.process(component).log)  # type: ignore[union-attr]
    disk.fill()
    size = log.size
    try:
        await asyncio.sleep(lasts_s)
        held.signs["disk_full"] = disk.is_full()
        held.signs["log_stood_still"] = log.size <= size + _PAGE_BYTES  # the file's last page was its own already
        yield
    finally:
        disk.empty()


@asynccontextmanager
async def clock_jump(component: str, seconds: int, deployment: Deployment, held: Held, lasts_s: float) -> AsyncIterator[None]:
    """Its clock goes forward or back at once, and at the end jumps again to the right time."""
    deployment.clocks[component].move(seconds)
    try:
        await asyncio.sleep(lasts_s)
        off_s = await _clock_of(component, deployment) - time.time()
        held.signs["hours_off"] = round(off_s / 3600, 1)
        yield
    finally:
        deployment.clocks[component].move(0)


def all_faults() -> list[Fault]:
    """Every fault of every component where it means something; those that need another deployment come last."""
    return [
        *(Fault(name="kill", component=each, inject=partial(kill, each), loses_log=each == "decoder") for each in COMPONENTS),
        *(Fault(name="stop", component=each, inject=partial(stop, each)) for each in COMPONENTS),
        *(
            Fault(name="partition", component=each, inject=partial(partition, each), by_proxy=each == "decoder")
            for each in COMPONENTS
        ),
        Fault(name="disk_full", component="redis", inject=redis_disk_full, root=True),
        *(
            Fault(
                name="disk_full",
                component=each,
                inject=partial(log_disk_full, each),
                root=True,
                loses_log=each == "decoder",
            )
            for each in _SERVICES
        ),
        *(
            Fault(name=name, component=each, inject=partial(clock_jump, each, seconds), moves_clocks=True)
            for each in COMPONENTS
            for name, seconds in (("clock_forward", _JUMP_SECONDS), ("clock_back", -_JUMP_SECONDS))
        ),
    ]


def _exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _state_of(pid: int) -> str:
    """The kernel's letter for it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def _refused_write(client: redis.asyncio.Redis) -> bool:
    try:
        await client.set("probe", 1)
    except redis.asyncio.ResponseError as error:
        return "MISCONF" in str(error)
    return False


async def _clock_of(component: str, deployment: Deployment) -> float:
    """Seconds since the epoch, as the component has it."""
    if component == "redis":
        async with redis.asyncio.Redis(port=deployment.redis.port) as client:
            seconds, _ = await client.time()
            return float(seconds)
    if component == "collector":
        return float(deployment.collector.state()["clock"])
    log = RequestLog(deployment.process(component).log)  # type: ignore[union-attr]
    await until(lambda: log.clock_s() > 0, what=f"{component}: one more line in the log")
    return log.clock_s()
