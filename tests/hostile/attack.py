"""Sends cases to live services, and after each an ordinary question, whose answer must be the undisturbed one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from redis.asyncio import Redis

from tests.hostile.case import ENCODE, GENERATE, QUESTION, CallCase, Case, ConnectionCase, EntryCase, ReplyCase, Target
from tests.hostile.deployment import ROOM, Deployment
from tests.hostile.http_talk import HttpCase, Talk, answer_of, exchange, post, question, said
from tests.hostile.image_files import file_of
from tests.hostile.memory import MemoryBound, PeakMemory
from tests.hostile.scrub import told
from tests.support.asking import PICTURE, Reply, ask, chat
from tests.support.service_process import ServiceProcess
from vscan.cache.lease import entry_name
from vscan.rpc.error_details import error_from_rpc
from vscan.v1 import decoder_pb2_grpc, encoder_pb2, visual_tokens_pb2

log = logging.getLogger(__name__)

HANG_SECONDS = 60.0
_ORDINARY = chat(PICTURE, QUESTION, max_new_tokens=6)
_RETRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a case. `fault`: what should not be; empty if nothing."""

    family: str
    name: str
    status: str
    field: str
    text: str
    ms: float
    encoder_growth_bytes: int = 0
    decoder_growth_bytes: int = 0
    gateway_growth_bytes: int = 0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Ended:
    status: grpc.StatusCode
    field: str = ""
    text: str = ""
    reply: Reply | None = None
    name: str = ""  # of what is no status of gRPC
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Clients:
    decoder: Any  # channels, by which bytes go as they are
    encoder: Any
    behind: Any
    redis: Any

    def stub(self, *, behind: bool = False) -> decoder_pb2_grpc.DecoderStub:
        """Of a decoder."""
        return decoder_pb2_grpc.DecoderStub(self.behind if behind else self.decoder)  # type: ignore[no-untyped-call]


class Attack:
    """One run over a deployment. `bound`: what a request may take."""

    def __init__(self, deployment: Deployment, clients: _Clients, bound: MemoryBound) -> None:
        self._deployment = deployment
        self._clients = clients
        self._bound = bound
        self._undisturbed: list[int] = []
        self._undisturbed_text = ""
        self._seeds = count(1000)
        self._ordinary_entry = ""

    async def begin(self) -> None:
        """Asks what the ordinary answer is, of both decoders."""
        first, behind = [await ask(self._clients.stub(behind=one), _ORDINARY, timeout=HANG_SECONDS) for one in (False, True)]
        if first.ids != behind.ids:
            raise RuntimeError("the two decoders disagree before anything was done to them")
        self._undisturbed = first.ids
        self._undisturbed_text = await self._ask_over_http()
        self._ordinary_entry = entry_name(await self._key_of(PICTURE))

    async def one_by_one(self, cases: Sequence[Case]) -> AsyncIterator[Result]:
        """Each alone, with what it took of memory."""
        for case in cases:
            peaks = {name: PeakMemory(_pid(service)) for name, service in self._deployment.services.items()}
            for peak in peaks.values():
                peak.begin()
            log.info("%s", case.title)
            result = await self._tried(case)
            if lost := self._lost():
                yield replace(result, fault=lost)
                return
            grown = {name: peak.growth_bytes() for name, peak in peaks.items()}
            yield self._weighed(result, grown, at_once=1)

    async def together(self, cases: Sequence[Case], at_once: int) -> list[Result]:
        """So many at once, in this order; memory is that of the whole run, in the last result."""
        places, results = asyncio.Semaphore(at_once), list[Result]()
        peaks = {name: PeakMemory(_pid(service)) for name, service in self._deployment.services.items()}
        for peak in peaks.values():
            peak.begin()

        async def one(case: Case) -> None:
            async with places:
                if not self._lost():
                    log.info("%s", case.title)
                    results.append(await self._tried(case))

        await asyncio.gather(*(one(case) for case in cases))
        if lost := self._lost():
            return [*results, replace(results[-1], fault=lost)]
        grown = {name: peak.growth_bytes() for name, peak in peaks.items()}
        whole = Result(family="all at once", name=f"{at_once} at a time", status="OK", field="", text="", ms=0.0)
        return [*results, self._weighed(whole, grown, at_once=at_once)]

    async def _tried(self, case: Case) -> Result:
        made = await asyncio.to_thread(_made, case)  # not the service's time
        started = time.perf_counter()
        ended = await self._sent(case, made)
        result = Result(
            family=case.family,
            name=case.name,
            status=ended.name or ended.status.name,
            field=ended.field,
            text=ended.text,
            ms=round((time.perf_counter() - started) * 1000, 1),
        )
        if ended.fault:
            return replace(result, fault=ended.fault)
        if not case.expected.holds(ended.status, ended.field):
            return replace(result, fault="ended otherwise than expected")
        if telling := told(ended.text):
            return replace(result, fault=f"tells {telling}")
        return replace(result, fault=await self._next_fault(case))

    async def _sent(self, case: Case, made: bytes) -> _Ended:
        match case:
            case CallCase():
                return await self._call(case, made)
            case ReplyCase():
                image = self._new_image()
                self._deployment.spoiler.spoil(image, case.spoil)
                return await self._asked(chat(image, QUESTION, max_new_tokens=4), behind=True)
            case EntryCase():
                return await self._with_entry(case)
            case ConnectionCase():
                host, _, port = self._deployment.decoder.address.rpartition(":")
                async with asyncio.timeout(HANG_SECONDS):
                    await case.talk(host, int(port))
                return _Ended(grpc.StatusCode.OK)
            case HttpCase():
                return await self._over_http(case)
        raise TypeError(type(case).__name__)

    async def _call(self, case: CallCase, request: bytes) -> _Ended:
        channel = self._clients.encoder if case.target is Target.ENCODER else self._clients.decoder
        try:
            if case.method == GENERATE:
                async for _ in channel.unary_stream(case.method)(request, metadata=case.metadata, timeout=HANG_SECONDS):
                    pass
            else:
                await channel.unary_unary(case.method)(request, metadata=case.metadata, timeout=HANG_SECONDS)
        except grpc.aio.AioRpcError as error:
            return _refusal(error)
        return _Ended(grpc.StatusCode.OK)

    async def _over_http(self, case: HttpCase) -> _Ended:
        try:
            came = said(await self._talk(case.talk), case)
        except TimeoutError:
            return _Ended(grpc.StatusCode.DEADLINE_EXCEEDED, fault="no end within a minute")
        text = came.text.replace("/v1/models", "")  # where models are listed
        return _Ended(grpc.StatusCode.OK, came.param, text, name=came.name, fault=came.fault)

    async def _talk(self, talk: Talk) -> bytes:
        host, _, port = self._deployment.gateway.address.rpartition(":")
        async with asyncio.timeout(HANG_SECONDS):
            return await talk(host, int(port))

    async def _ask_over_http(self) -> str:
        """The ordinary question's answer, or what came instead."""
        return answer_of(await self._talk(exchange(post(question(QUESTION, max_tokens=6)))))

    async def _asked(self, request: Any, *, behind: bool = False) -> _Ended:
        try:
            reply = await ask(self._clients.stub(behind=behind), request, timeout=HANG_SECONDS)
        except Exception as error:
            cause = error.__cause__
            if not isinstance(cause, grpc.aio.AioRpcError):
                raise
            return _refusal(cause)
        return _Ended(grpc.StatusCode.OK, reply=reply)

    async def _with_entry(self, case: EntryCase) -> _Ended:
        """The answer about an image, whose entry is spoilt then; the answer must stay."""
        image, other = self._new_image(), self._new_image()
        first = await self._asked(chat(image, QUESTION, max_new_tokens=4))
        key, other_key = await self._key_of(image), await self._key_of(other)
        entry, other_entry = await self._clients.redis.mget(entry_name(key), entry_name(other_key))
        await self._clients.redis.set(entry_name(key), case.spoil(entry, key, other_entry))
        again = await self._asked(chat(image, QUESTION, max_new_tokens=4))
        if first.reply and again.reply and first.reply.ids != again.reply.ids:
            return _Ended(grpc.StatusCode.DATA_LOSS, text="another answer than before")
        return again

    async def _key_of(self, image: bytes) -> bytes:
        """The image's key in Redis, where its tokens lie from now on."""
        request = encoder_pb2.EncodeRequest(
            image=visual_tokens_pb2.Image(data=image), reply_form=encoder_pb2.REPLY_FORM_REFERENCE
        )
        reply = await self._clients.encoder.unary_unary(ENCODE)(request.SerializeToString(), timeout=HANG_SECONDS)
        return encoder_pb2.EncodeResponse.FromString(reply).content_key

    def _new_image(self) -> bytes:
        return file_of("PNG", size=(224, 168), seed=next(self._seeds))

    async def _next_fault(self, case: Case) -> str:
        """Why the ordinary question behind a case was not answered as ever; its tokens are made anew."""
        if isinstance(case, HttpCase):
            answer = await self._ask_over_http()
            return "" if answer == self._undisturbed_text else f"the next question got {answer[:200]}"
        await self._clients.redis.unlink(self._ordinary_entry)
        ended = await self._asked(_ORDINARY, behind=isinstance(case, ReplyCase))
        if ended.reply is None:
            return f"the next question got {ended.status.name}: {ended.text}"
        return "" if ended.reply.ids == self._undisturbed else "the next question got another answer"

    def _weighed(self, result: Result, grown: dict[str, int], *, at_once: int) -> Result:
        took = {"encoder": grown["encoder"], "decoder": max(grown["decoder"], grown["behind"]), "gateway": grown["gateway"]}
        result = replace(
            result,
            encoder_growth_bytes=took["encoder"],
            decoder_growth_bytes=took["decoder"],
            gateway_growth_bytes=took["gateway"],
        )
        for name, most in self._bound.of_services(at_once).items():
            if took[name] > most and not result.fault:
                return replace(result, fault=f"the {name} took {took[name] >> 20} MiB more, over {most >> 20}")
        return result

    def _lost(self) -> str:
        ended = [name for name, service in self._deployment.services.items() if not service.runs]
        return f"ended: {', '.join(ended)}" if ended else ""


@asynccontextmanager
async def attack(deployment: Deployment, bound: MemoryBound) -> AsyncIterator[Attack]:
    """Ready to begin."""
    addresses = (deployment.decoder.address, deployment.encoder.address, deployment.behind.address)
    channels: list[Any] = [grpc.aio.insecure_channel(address, options=ROOM) for address in addresses]
    redis = Redis.from_url(deployment.redis.url)
    try:
        one = Attack(deployment, _Clients(channels[0], channels[1], channels[2], redis), bound)
        await one.begin()
        yield one
    finally:
        await redis.aclose()
        await asyncio.gather(*(channel.close() for channel in channels))


def _made(case: Case) -> bytes:
    made = case.make() if isinstance(case, CallCase) else b""
    return made.SerializeToString() if isinstance(made, Message) else made


def _refusal(error: grpc.aio.AioRpcError) -> _Ended:
    typed = error_from_rpc(error)
    # UNKNOWN statuses of gRPC itself have no class of their own: what counts is what came over the wire.
    return _Ended(error.code(), getattr(typed, "field", ""), error.details() or "")


def _pid(service: ServiceProcess) -> int:
    if not service.runs:
        raise RuntimeError(f"the {service.kind} has ended")
    return service.pid
