"""How much of the files that are warmed is in memory at once."""

import asyncio

from tests.support.until import until
from vscan_client.cli.warming import Room


async def test_files_wait_for_room_and_one_that_is_too_large_goes_alone() -> None:
    room = Room(100)
    inside: dict[str, asyncio.Event] = {}

    async def hold(name: str, count: int) -> None:
        async with room.for_bytes(count):
            inside[name] = asyncio.Event()
            await inside[name].wait()
            del inside[name]

    async with asyncio.TaskGroup() as tasks:
        for name, count in (("a", 60), ("b", 40), ("c", 50), ("huge", 1000)):
            tasks.create_task(hold(name, count))
            await asyncio.sleep(0)  # each asks in its turn
        await until(lambda: inside.keys() == {"a", "b"}, what="two fit")
        inside["a"].set()
        await until(lambda: inside.keys() == {"b", "c"}, what="the next fits")
        inside["b"].set()
        await until(lambda: inside.keys() == {"c"})
        inside["c"].set()
        await until(lambda: inside.keys() == {"huge"}, what="the large one")
        inside["huge"].set()
