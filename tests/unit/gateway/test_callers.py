"""Whom a gateway takes a caller for, and for how long it believes that its decoder knows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.datastructures import Headers

from gateway_service.callers import Callers
from gateway_service.config import GatewaySettings, Share
from vscan.errors import ResourceExhausted, Unauthenticated, Unavailable


class Judge:
    """A client whose decoder knows some tokens, or takes any."""

    known: frozenset[str] | None = frozenset({"a", "b"})

    def __init__(self, token: str = "") -> None:
        self.token = token

    def with_token(self, token: str) -> Judge:
        return Judge(token)

    async def describe(self) -> None:
        await asyncio.sleep(0)
        if Judge.known is not None and self.token not in Judge.known:
            raise Unauthenticated("not known")


def callers(now: list[float], **options: Any) -> Callers:
    usual: dict[str, Any] = {"require_token": True, "most": 2, "remembered_s": 30}
    client: Any = Judge()
    return Callers(client, Share(1, 100), clock=lambda: now[0], **usual | options)


def bearing(token: str) -> Headers:
    return Headers({"authorization": f"Bearer {token}"})


async def test_requests_that_come_at_once_with_one_token_are_one_callers() -> None:
    both = callers([0.0])
    first, second = await asyncio.gather(*(both.caller_of(bearing("a")) for _ in range(2)))
    assert first is second
    assert await both.caller_of(bearing("b")) is not first


async def test_a_share_is_given_back() -> None:
    caller = await callers([0.0]).caller_of(bearing("a"))
    with caller.holding(50), pytest.raises(ResourceExhausted, match="1 requests of this caller"), caller.holding(1):
        pass
    with pytest.raises(ResourceExhausted, match="100 bytes"), caller.holding(101):
        pass
    with caller.holding(100):
        pass


async def test_a_decoder_is_asked_again_whether_it_judges_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    asked = callers(now)
    await asked.check_decoder()
    monkeypatch.setattr(Judge, "known", None)
    await asked.check_decoder()
    now[0] = 31.0
    with pytest.raises(Unavailable, match="takes any token"):
        await asked.caller_of(bearing("nobody"))


def test_a_token_may_take_half_where_tokens_tell_callers_apart() -> None:
    usual: dict[str, Any] = {"max_concurrent_requests": 8, "max_bodies_bytes": 8192, "max_body_bytes": 2048}
    assert GatewaySettings(**usual).share == Share(8, 8192)
    assert GatewaySettings(**usual, require_token=True).share == Share(4, 4096)
    assert GatewaySettings(**usual, require_token=True, max_caller_requests=7).share == Share(7, 4096)
    tight = usual | {"max_bodies_bytes": 2048, "max_concurrent_requests": 1}
    assert GatewaySettings(**tight, require_token=True).share == Share(1, 2048)
