"""Who asks: the SDK's client for the bearer token of a request. The decoder judges tokens, nobody does here."""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256

from starlette.datastructures import Headers

from gateway_service.config import Share
from vscan.errors import ResourceExhausted, Unauthenticated, Unavailable
from vscan.rpc.bearer import is_token
from vscan.rpc.request_room import RequestRoom
from vscan_client import AsyncClient

_SCHEME = re.compile(r"bearer +", re.IGNORECASE | re.ASCII)
_REFUSAL = "a bearer token is needed: Authorization: Bearer TOKEN"


RETRY_DELAY_MS = 200


class Caller:
    """One who asks, and how much of its share it has taken. `client` asks for it."""

    def __init__(self, client: AsyncClient, share: Share) -> None:
        self.client = client
        self._room, self._most, self._served = RequestRoom(share.body_bytes), share.requests, 0

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """While a request of this size is served. Raises ResourceExhausted where the share is taken."""
        if self._served >= self._most:
            reason = f"{self._most} requests of this caller are being served already"
            raise ResourceExhausted(reason, retry_delay_ms=RETRY_DELAY_MS)
        with self._room.holding(size_bytes):
            self._served += 1
            try:
                yield
            finally:
                self._served -= 1


class Callers:
    """Remembers for a bounded number of tokens, known by their hashes, which images each has sent.

    Args:
        client: of callers that show no token.
        share: of each token; those who show none share one.
        require_token: refuse those.
        most: how many are remembered.
        remembered_s: for how long the decoder is believed to judge tokens, in seconds.
    """

    def __init__(
        self,
        client: AsyncClient,
        share: Share,
        *,
        require_token: bool,
        most: int,
        remembered_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._share, self._require_token, self._most = client, share, require_token, most
        self._remembered_s, self._clock = remembered_s, clock
        self._anonymous = Caller(client, share)
        self._by_token: OrderedDict[bytes, Caller] = OrderedDict()
        self._judged_until = -1.0

    async def caller_of(self, headers: Headers) -> Caller:
        """Who sent these headers.

        Raises:
            Unauthenticated: there is no token where one is needed, what was sent is none, or the decoder does not know it.
            Unavailable: tokens are needed, and the decoder takes any.
        """
        token = _token_in(headers)
        if self._require_token:
            await self.check_decoder()
        if token is not None:
            return await self._known(token)
        if self._require_token:
            raise Unauthenticated(_REFUSAL)
        return self._anonymous

    async def check_decoder(self) -> None:
        """Where tokens are needed: that the decoder refuses one that nobody has. Raises Unavailable where it does not."""
        if not self._require_token or self._clock() < self._judged_until:
            return
        try:
            await self._client.with_token(secrets.token_urlsafe(32)).describe()
        except Unauthenticated:
            self._judged_until = self._clock() + self._remembered_s
            return
        raise Unavailable("the decoder takes any token: it needs an identities file, since this gateway requires tokens")

    async def _known(self, token: str) -> Caller:
        """A token that was not seen lately is shown to the decoder before anything more of its request is read."""
        key = sha256(token.encode()).digest()
        if key not in self._by_token:
            client = self._client.with_token(token)
            await client.describe()
            self._by_token.setdefault(key, Caller(client, self._share))  # another request of its may have come meanwhile
        self._by_token.move_to_end(key)
        if len(self._by_token) > self._most:
            self._by_token.popitem(last=False)
        return self._by_token[key]


def _token_in(headers: Headers) -> str | None:
    sent = headers.getlist("authorization")
    if not sent:
        return None
    scheme = _SCHEME.match(sent[0])
    token = sent[0][scheme.end() :] if scheme else ""
    if len(sent) > 1 or not is_token(token):
        raise Unauthenticated(_REFUSAL)
    return token
