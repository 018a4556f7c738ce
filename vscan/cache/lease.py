"""Who encodes an image, among replicas: a lease in Redis for each content key.

    entry  vscan:vt:KEY              value, expires after the TTL
    lease  vscan:lease:{vscan:vt:KEY}    random token of its holder, expires after lease_seconds unless renewed

The braces put a lease into the same slot of a Cluster as its entry, so that one script may touch both at once. What must not
come apart is a script: "is there an entry, and if not, is it my turn", and "write the entry if it is still mine to write".
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import IntEnum

from opentelemetry.trace import Span

from vscan.cache.recorder import CacheRecorder
from vscan.cache.redis_link import NoAnswer, Operation, RedisLink

ENTRY_PREFIX = "vscan:vt:"
_TOKEN_BYTES = 16

# The holder that asks again (its first question's answer was lost on the way) holds it still. A lease that would last longer
# than one can, since the clock of Redis was put back or somebody else wrote there, is cut: its holder may be dead.
_JOIN = """
if ARGV[3] == '0' and redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[2]) == ARGV[1] then return 2 end
local left = redis.call('PTTL', KEYS[2])
if left < 0 or left > tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
return 3
"""
# Without a lease of one's own an entry is written only if nobody else makes it or has made it: Redis was away at the beginning,
# or it has forgotten the lease (restarted, failed over, evicted it).
PUBLISH = """
local holder = redis.call('GET', KEYS[2])
if holder ~= ARGV[1] and (holder or redis.call('EXISTS', KEYS[1]) == 1) then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
if holder then redis.call('DEL', KEYS[2]) end
return 1
"""
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Standing(IntEnum):
    """Where one stands who wants an entry. The numbers are the script's."""

    AWAY = 0  # Redis did not answer
    FOUND = 1  # the entry is there
    LEADS = 2  # it is this one's turn
    WAITS = 3  # another one's


@dataclass(slots=True, eq=False)
class Lease:
    """One replica's claim on one key. The token fences: who has lost the lease cannot write what another one makes."""

    key: bytes  # content key, 32
    token: str
    held: bool = False  # as far as is known here
    unsettled: bool = False  # asked for, and no answer has come: Redis may have given it

    @classmethod
    def of(cls, key: bytes) -> Lease:
        """A new claim, with a token that nobody can guess."""
        return cls(key, secrets.token_hex(_TOKEN_BYTES))

    @property
    def names(self) -> tuple[str, str]:
        """Redis' names of the entry and of the lease."""
        return entry_name(self.key), lease_name(self.key)

    def over(self) -> None:
        """There is nothing to give back any more."""
        self.held = self.unsettled = False


class RedisLeases:
    """Takes, renews and gives back leases. Belongs to one event loop; never raises for a fault of Redis."""

    def __init__(self, link: RedisLink, *, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self._link = link
        self._lease_ms = max(1, round(lease_seconds * 1000))

    @property
    def recorder(self) -> CacheRecorder:
        """Where turns are counted."""
        return self._link.recorder

    async def join(self, lease: Lease, span: Span, *, over_entry: bool = False) -> Standing:
        """Asks for the turn. `over_entry`: also where an entry is, because it could not be read."""
        arguments = lease.token, self._lease_ms, int(over_entry)

        async def ask() -> Standing:
            return Standing(await self._link.client.run(_JOIN, lease.names, *arguments))

        lease.unsettled = True  # also where the wait for the answer is cancelled
        try:
            standing = await self._link.ask(Operation.LEASE, ask, span)
        except NoAnswer as silence:
            lease.unsettled = silence.may_have_run
            return Standing.AWAY
        lease.held, lease.unsettled = standing is Standing.LEADS, False
        return standing

    async def renew(self, lease: Lease) -> bool:
        """Puts off the end of the lease. False if it is not this one's any more; true if Redis did not say."""
        run, name = self._link.client.run, lease.names[1]
        try:
            return bool(await self._link.ask(Operation.RENEW, lambda: run(_RENEW, [name], lease.token, self._lease_ms)))
        except NoAnswer:
            return True

    async def release(self, lease: Lease) -> None:
        """Gives the turn to the next one, if it is, or may be, this one's. What Redis does not hear of expires."""
        if not (lease.held or lease.unsettled):
            return
        lease.over()
        run, name = self._link.client.run, lease.names[1]
        try:
            await self._link.ask(Operation.RELEASE, lambda: run(_RELEASE, [name], lease.token))
        except NoAnswer:
            return


def entry_name(key: bytes) -> str:
    """Redis' name of an entry."""
    return ENTRY_PREFIX + key.hex()


def lease_name(key: bytes) -> str:
    """Redis' name of its lease."""
    return f"vscan:lease:{{{entry_name(key)}}}"
