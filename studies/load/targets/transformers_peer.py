"""The same checkpoint behind transformers' own `generate`, in a process of its own: serving without a server."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from studies.load.album import Album
from studies.load.targets.base import Seen
from studies.load.workload import Ask
from vscan.errors import DeadlineExceeded, InternalError, StartupError, Unavailable

_LONGEST_LINE_BYTES = 1 << 20


class TransformersPeer:
    """Made by `start`. One request after the other, or as many together as `batch` says, in the order they come."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any], timeout_s: float) -> None:
        self.process, self.ready = process, ready
        self._timeout_s = timeout_s
        self._numbers = itertools.count()
        self._told: dict[int, asyncio.Queue[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        model: Path,
        *,
        cores: Sequence[int],
        threads: Sequence[int],
        batch: int,
        device: str,
        dtype: str = "auto",
        most_tokens: int,
        timeout_s: float,
    ) -> TransformersPeer:
        """Loads the model in a new process that is kept to these cores, and takes the count of threads that is fastest there.

        Args:
            dtype: as the services' setting.
            most_tokens: of an answer whose length is the model's own.

        Raises StartupError where it does not come up, with the last line that it wrote.
        """
        complaints = TemporaryFile()  # noqa: SIM115  (the process has it as long as it lives)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "studies.load.targets.transformers_worker"),
            *("--model", str(model), "--device", device, "--threads", ",".join(map(str, threads)), "--batch", str(batch)),
            *("--cores", ",".join(map(str, cores)), "--dtype", dtype, "--most-tokens", str(most_tokens)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            limit=_LONGEST_LINE_BYTES,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(max(threads))},
        )
        assert process.stdout is not None
        with complaints:
            if not (line := await process.stdout.readline()):
                code = await process.wait()
                raise StartupError(
                    f"transformers: its process ended with code {code} before the model was loaded: {_end(complaints)}"
                )
        return cls(process, json.loads(line)["ready"], timeout_s)

    def about(self, album: Album) -> TransformersTarget:
        """What asks it about these images."""
        return TransformersTarget(self, album)

    async def answer(self, ask: Ask, images: Sequence[bytes], seen: Seen) -> None:
        """One request to its end. Visual tokens are not told: transformers counts them as prompt tokens."""
        number = next(self._numbers)
        self._told[number] = asyncio.Queue()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._send(number, ask, images)
                await self._listen(number, seen)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no whole answer within {self._timeout_s:g} s") from error
        finally:
            del self._told[number]

    async def close(self) -> None:
        """Ends the process."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 5)
        except TimeoutError:  # in the middle of an answer that nobody waits for
            self.process.kill()
            await self.process.wait()
        self._reader.cancel()

    async def _send(self, number: int, ask: Ask, images: Sequence[bytes]) -> None:
        files = [base64.b64encode(image).decode() for image in images]
        told = {"id": number, "images": files, "question": ask.question, "answer_tokens": ask.answer_tokens}
        assert self.process.stdin is not None
        if self.process.returncode is not None:
            raise Unavailable("transformers: its process has ended")
        try:
            self.process.stdin.write(json.dumps(told).encode() + b"\n")
            await self.process.stdin.drain()
        except ConnectionError as error:
            raise Unavailable("transformers: its process has ended") from error

    async def _listen(self, number: int, seen: Seen) -> None:
        while "completion_tokens" not in (told := await self._told[number].get()):
            if "gone" in told:
                raise Unavailable("transformers: its process has ended")
            if "error" in told:
                raise InternalError(f"transformers: {told['error']}")
            seen.content()
        seen.usage(prompt_tokens=told["prompt_tokens"], completion_tokens=told["completion_tokens"])

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            told = json.loads(line)
            if (heard := self._told.get(told["id"])) is not None:
                heard.put_nowait(told)
        for heard in self._told.values():
            heard.put_nowait({"gone": True})


def _end(written: IO[bytes]) -> str:
    """The last line; a traceback says there what was wrong."""
    written.seek(0)
    lines = written.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


class TransformersTarget:
    """The peer, asked about the images of one album."""

    def __init__(self, peer: TransformersPeer, album: Album) -> None:
        self._peer, self._album = peer, album

    async def ask(self, ask: Ask, seen: Seen) -> None:
        """See `Target`."""
        await self._peer.answer(ask, [self._album[image].data or b"" for image in ask.images], seen)

    async def close(self) -> None:
        """See `Target`. The process is ended by who started it."""
