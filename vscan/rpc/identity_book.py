"""The identities that hold now: read at the start, and again by a task of its own whenever the file changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from vscan.errors import StartupError
from vscan.rpc.identities import MAX_FILE_BYTES, Identities, IdentitiesError, parse_identities
from vscan.watched_file import WatchedFile

CHECK_SECONDS = 1.0

_log = logging.getLogger(__name__)


class IdentityBook:
    """Keeps up with one file. A new version that is bad is told in the log, and the last good one holds on.

    Args:
        path: the identities file.
        why_not: says why a version must not be used although it is well formed; None if it may be.
        check_seconds: between two looks at the file.

    Raises:
        StartupError: the first version cannot be used.
    """

    def __init__(
        self,
        path: Path,
        *,
        why_not: Callable[[Identities], str | None] = lambda identities: None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self._file = WatchedFile(path, max_bytes=MAX_FILE_BYTES)
        self._why_not = why_not
        self._check_seconds = check_seconds
        self._problem = ""
        self._task: asyncio.Task[None] | None = None
        self._unsettled: bytes | None = None
        try:
            content = self._content()
            assert content is not None  # what was never seen has changed
            self._now = self._checked(content)
        except IdentitiesError as error:
            raise StartupError(f"identities_file: {path}: {error}") from None
        _warn_of_idle_limits(self._now)

    @property
    def now(self) -> Identities:
        """The identities that hold."""
        return self._now

    def start(self) -> None:
        """Starts to watch the file, in the running event loop."""
        self._task = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Looks once, now. Off the event loop: a large file takes long to parse.

        A new version holds when the next look finds it unchanged. Half of one, while it is being written, may be well formed
        and mean something else: of an entry without its last line the tenant is `default`.
        """
        try:
            new = await asyncio.to_thread(self._settled)
        except IdentitiesError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("the identities file has a version that cannot be used, the last one holds on: %s", error)
            return
        if new is not None:
            self._now, self._problem = new, ""
            _log.info("identities: %d of %d tenants hold now", len(list(new.callers)), len(new.tenants))
            _warn_of_idle_limits(new)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._check_seconds)
            try:
                await self.refresh()
            except Exception:  # without this loop nobody could be shut out any more
                _log.exception("looking at the identities file failed")

    def _settled(self) -> Identities | None:
        """The version that the last look found first, and this one unchanged; None if there is none."""
        before, self._unsettled = self._unsettled, None
        self._unsettled = self._content()
        return self._checked(before) if self._unsettled is None and before is not None else None

    def _content(self) -> bytes | None:
        """Of another version than the last one read, or None."""
        try:
            return self._file.read_if_changed()
        except OSError as error:
            raise IdentitiesError(f"cannot be read: {error.strerror}") from None

    def _checked(self, content: bytes) -> Identities:
        identities = parse_identities(content)
        if problem := self._why_not(identities):
            raise IdentitiesError(problem)
        return identities


def _warn_of_idle_limits(identities: Identities) -> None:
    # No reason to refuse the file: the last identity of a tenant may have been removed in a hurry.
    if idle := sorted(set(identities.limits) - identities.tenants):
        _log.warning("identities: there are limits for tenants that no identity has: %s", ", ".join(idle[:10]))
