"""Who asks: the SDK's client for the bearer token of a request. The decoder judges tokens, nobody does here."""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from hashlib import sha256

from starlette.datastructures import Headers

from vscan.errors import Unauthenticated, Unavailable
from vscan.rpc.bearer import is_token
from vscan_client import AsyncClient

_SCHEME = re.compile(r"bearer +", re.IGNORECASE | re.ASCII)
_REFUSAL = "a bearer token is needed: Authorization: Bearer TOKEN"


class Callers:
    """Remembers for a bounded number of tokens, known by their hashes, which images each has sent.

    Args:
        client: of callers that show no token.
        require_token: refuse those.
        most: how many are remembered.
    """

    def __init__(self, client: AsyncClient, *, require_token: bool, most: int) -> None:
        self._client, self._require_token, self._most = client, require_token, most
        self._by_token: OrderedDict[bytes, AsyncClient] = OrderedDict()
        self._decoder_judges = False

    async def client_for(self, headers: Headers) -> AsyncClient:
        """The client that asks for this caller.

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
        return self._client

    async def check_decoder(self) -> None:
        """Where tokens are needed: that the decoder refuses one that nobody has. Raises Unavailable where it does not."""
        if self._decoder_judges or not self._require_token:
            return
        try:
            await self._client.with_token(secrets.token_urlsafe(32)).describe()
        except Unauthenticated:
            self._decoder_judges = True
            return
        raise Unavailable("the decoder takes any token: it needs an identities file, since this gateway requires tokens")

    async def _known(self, token: str) -> AsyncClient:
        """A token that was not seen lately is shown to the decoder before anything more of its request is read."""
        key = sha256(token.encode()).digest()
        client = self._by_token.pop(key, None)
        if client is None:
            client = self._client.with_token(token)
            await client.describe()
        self._by_token[key] = client
        if len(self._by_token) > self._most:
            self._by_token.popitem(last=False)
        return client


def _token_in(headers: Headers) -> str | None:
    sent = headers.getlist("authorization")
    if not sent:
        return None
    scheme = _SCHEME.match(sent[0])
    token = sent[0][scheme.end() :] if scheme else ""
    if len(sent) > 1 or not is_token(token):
        raise Unauthenticated(_REFUSAL)
    return token
