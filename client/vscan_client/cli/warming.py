"""Files on their way into the cache: what `vscan warm` does.

    names of files ──read once──▶ digests ──Lookup, many at once──▶ not cached ──read again, Encode──▶ cached

Held in memory are the names, a digest for each, and the files that are just being sent, within a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vscan.errors import InvalidArgument, VScanError
from vscan.specs import FrameSampling, ReductionSpec
from vscan_client._files import name_file
from vscan_client.cli.questions import read_files
from vscan_client.content import Image, Video, Visual

if TYPE_CHECKING:
    from vscan_client import AsyncClient

_USUAL_LOOKUP_DIGESTS = 256  # of an encoder that does not say
# So much is read for one Lookup at most: before large files are all named, the first are being encoded.
_BATCH_BYTES = 64 * 2**20
# Of files that are being sent; a larger one goes alone.
_SENDING_BYTES = 256 * 2**20
_FIELD = "file"


@dataclass(frozen=True, slots=True)
class MediaFile:
    """A file to warm. `as_video`: it is meant as one, whatever it looks like."""

    name: str
    as_video: bool = False


@dataclass(frozen=True, slots=True)
class _Named:
    """A file that was read once, and the name of what is in it."""

    file: MediaFile
    visual: Visual
    size_bytes: int


class Room:
    """For so many bytes at once. What is larger has it alone."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._taken_bytes = 0
        self._left = asyncio.Condition()

    @asynccontextmanager
    async def for_bytes(self, count: int) -> AsyncIterator[None]:
        """Waits until they fit, and keeps their room meanwhile."""
        async with self._left:
            await self._left.wait_for(lambda: self._taken_bytes == 0 or self._taken_bytes + count <= self._size_bytes)
            self._taken_bytes += count
        try:
            yield
        finally:
            async with self._left:
                self._taken_bytes -= count
                self._left.notify_all()


class Warming:
    """One run. A file's error stops nothing.

    Args:
        files: what to warm.
        reduction, sampling: under which reduction, and which frames of videos; `None` is as the deployment does it.
        tell: takes the record of each file as it is done: JSON values, with `file` and `outcome`.
    """

    def __init__(
        self,
        files: Sequence[MediaFile],
        reduction: ReductionSpec | None,
        sampling: FrameSampling | None,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self._files = deque(files)
        self._reduction, self._sampling = reduction, sampling
        self._tell = tell
        self._seen: set[Visual] = set()  # names alone
        self._to_encode: deque[_Named] = deque()
        self._turn = asyncio.Lock()  # of whoever finds more to encode
        self._lookup_digests = _USUAL_LOOKUP_DIGESTS
        self._room = Room(_SENDING_BYTES)
        self._stopped = False
        self.encoded = self.cached = self.duplicates = self.failed = 0

    async def run(self, client: AsyncClient, concurrency: int) -> None:
        """Warms all files, `concurrency` at a time. Raises the error of an encoder that cannot be asked at all."""
        limits = (await client.describe_encoder()).limits
        self._lookup_digests = int(limits.get("max_lookup_digests", 0)) or _USUAL_LOOKUP_DIGESTS
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(concurrency):
                    workers.create_task(self._work(client))
        except* VScanError as group:
            raise group.exceptions[0] from None
        finally:
            self._stopped = True

    def fail(self, name: str, error: VScanError) -> None:
        """A file that could not be warmed."""
        self.failed += 1
        message = str(error).removeprefix(f"{_FIELD}: {name}: ")
        self._tell({"file": name, "outcome": "failed", "error": {"name": type(error).__name__, "message": message}})

    async def _work(self, client: AsyncClient) -> None:
        while (named := await self._next(client)) is not None:
            try:
                async with self._room.for_bytes(named.size_bytes):
                    visual = await asyncio.to_thread(self._read, named.file)
                    encoded = await client.encode(visual, reduction=self._reduction)
                    del visual  # or it would be held until the next one is here
            except VScanError as error:
                self.fail(named.file.name, error)
            else:
                self.encoded += 1
                self._tell({"file": named.file.name, "outcome": "encoded", **encoded.to_dict()})

    async def _next(self, client: AsyncClient) -> _Named | None:
        """A file that is not cached; `None` when there is none left."""
        async with self._turn:
            while not self._to_encode and self._files:
                named, bad = await asyncio.to_thread(self._name_some)
                for file, error in bad:
                    self.fail(file.name, error)
                fresh = [each for each in named if self._is_new(each)]
                # One Lookup is about images, or about videos of one sampling.
                for kind in (Image, Video):
                    await self._look_for(client, [each for each in fresh if isinstance(each.visual, kind)])
            return self._to_encode.popleft() if self._to_encode else None

    def _name_some(self) -> tuple[list[_Named], list[tuple[MediaFile, VScanError]]]:
        """Reads the next files, as many as one Lookup takes."""
        named: list[_Named] = []
        bad: list[tuple[MediaFile, VScanError]] = []
        size_bytes = 0
        while self._files and len(named) < self._lookup_digests and size_bytes < _BATCH_BYTES and not self._stopped:
            file = self._files.popleft()
            try:
                name = name_file(file.name, _FIELD)
            except InvalidArgument as error:
                bad.append((file, error))
                continue
            is_video = file.as_video or name.is_video
            visual = Video(name.sha256, sampling=self._sampling) if is_video else Image(name.sha256)
            named.append(_Named(file, visual, name.size_bytes))
            size_bytes += name.size_bytes
        return named, bad

    def _is_new(self, named: _Named) -> bool:
        if named.visual not in self._seen:
            self._seen.add(named.visual)
            return True
        self.duplicates += 1
        self._tell({"file": named.file.name, "outcome": "duplicate", "sha256": named.visual.digest})
        return False

    async def _look_for(self, client: AsyncClient, named: list[_Named]) -> None:
        if not named:
            return
        try:
            places = await client.lookup([each.visual for each in named], reduction=self._reduction)
        except VScanError as error:
            if isinstance(error, InvalidArgument) and error.field.startswith("reduction"):
                raise  # all would fail for it
            for each in named:
                self.fail(each.file.name, error)
            return
        for each, place in zip(named, places, strict=True):
            if place is None:
                self._to_encode.append(each)
            else:
                self.cached += 1
                told = {"outcome": "cached", "sha256": each.visual.digest, "place": place.value}
                self._tell({"file": each.file.name, **told})

    def _read(self, file: MediaFile) -> Visual:
        files, videos = ([], [file.name]) if file.as_video else ([file.name], [])
        (visual,) = read_files(files, videos, self._sampling)
        return visual
