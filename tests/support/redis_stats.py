"""What a Redis has been asked."""

from __future__ import annotations

from tests.support.caches import raw_client
from tests.support.redis_server import RedisServer
from tests.support.until import until


async def scripts_run(server: RedisServer) -> int:
    """Scripts that it has run: whoever waits for a turn runs one each time it asks."""
    async with raw_client(server) as client:
        stats = await client.info("commandstats")
    return int(stats.get("cmdstat_eval", {"calls": 0})["calls"])


async def until_polled(server: RedisServer, more: int = 4) -> None:
    """Until others have asked whose turn it is, so many times more."""
    enough = await scripts_run(server) + more

    async def polled() -> bool:
        return await scripts_run(server) >= enough

    await until(polled, what="asked again")


async def commands(server: RedisServer) -> dict[str, int]:
    """What it has been asked since the last such question, by command."""
    async with raw_client(server) as client:
        stats = await client.info("commandstats")
        await client.config_resetstat()
    asides = ("cmdstat_info", "cmdstat_config|resetstat", "cmdstat_config", "cmdstat_client|setinfo", "cmdstat_client")
    return {command: figures["calls"] for command, figures in stats.items() if command not in asides}
