"""Questions over real gRPC: short ways to write a request, and its answer in one piece."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from vscan.errors import VScanError
from vscan.rpc.channel import open_channel
from vscan.rpc.error_details import error_from_rpc
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc, visual_tokens_pb2

PICTURES = Path(__file__).parents[1] / "data" / "parity"
PICTURE = (PICTURES / "sq_a.png").read_bytes()
OTHER_PICTURE = (PICTURES / "sq_b.png").read_bytes()


@dataclass(slots=True)
class Reply:
    """A whole stream."""

    started: pb.Started
    finished: pb.Finished
    deltas: list[pb.TextDelta] = field(default_factory=list)

    @property
    def tokens(self) -> list[pb.GeneratedToken]:
        """All of the answer's tokens."""
        return [token for delta in self.deltas for token in delta.tokens]

    @property
    def ids(self) -> list[int]:
        """Their ids."""
        return [token.token_id for token in self.tokens]

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(delta.text for delta in self.deltas)

    @property
    def places(self) -> list[str]:
        """Where each image was found: "ENCODED", "MEMORY", ..."""
        return [visual_tokens_pb2.Place.Name(image.place).removeprefix("PLACE_") for image in self.started.images]


def part(content: str | bytes) -> pb.Part:
    """A text, an image file, or a digest (32 bytes)."""
    return pb.Part(text=content) if isinstance(content, str) else pb.Part(image=image(content))


def image(content: bytes) -> visual_tokens_pb2.Image:
    """An image file, or a digest (32 bytes)."""
    return visual_tokens_pb2.Image(sha256=content) if len(content) == 32 else visual_tokens_pb2.Image(data=content)


def chat(*contents: str | bytes, **fields: Any) -> pb.GenerateRequest:
    """One message of the user's; `fields` are those of SamplingParams, six tokens past any end unless told."""
    message = pb.Message(role=pb.ROLE_USER, parts=[part(content) for content in contents])
    return pb.GenerateRequest(chat=pb.Chat(messages=[message]), sampling=_sampling(fields))


def raw(text: str, *images: bytes, **fields: Any) -> pb.GenerateRequest:
    """A raw prompt."""
    prompt = pb.RawPrompt(text=text, images=[image(content) for content in images])
    return pb.GenerateRequest(raw=prompt, sampling=_sampling(fields))


def _sampling(fields: dict[str, Any]) -> pb.SamplingParams:
    return pb.SamplingParams(**{"max_new_tokens": 6, "ignore_eos": True} | fields)


@asynccontextmanager
async def decoder_stub(address: str) -> AsyncIterator[decoder_pb2_grpc.DecoderStub]:
    """A stub on a channel of its own."""
    async with open_channel(address) as channel:
        yield decoder_pb2_grpc.DecoderStub(channel)  # type: ignore[no-untyped-call]


async def ask(stub: decoder_pb2_grpc.DecoderStub, request: pb.GenerateRequest, **call: Any) -> Reply:
    """The whole answer. Raises the typed error that the call ended with."""
    try:
        events = [event async for event in stub.Generate(request, **call)]
    except grpc.aio.AioRpcError as error:
        raise error_from_rpc(error) from error
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", *["delta"] * (len(kinds) - 2), "finished"]
    return Reply(events[0].started, events[-1].finished, [event.delta for event in events[1:-1]])


async def refusal(stub: decoder_pb2_grpc.DecoderStub, request: pb.GenerateRequest, **call: Any) -> VScanError:
    """The error that the call must end with."""
    try:
        await ask(stub, request, **call)
    except VScanError as error:
        return error
    raise AssertionError("the request was answered")
