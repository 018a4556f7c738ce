"""A real encoder service around made-up tokens: what a resolver meets on the wire, without a vision transformer."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from encoder_service.cache.single_flight import SingleFlight
from tests.support.visual_values import make_tokens
from vscan.cache.place import Place
from vscan.cache.tiers import TieredCache
from vscan.content_key import content_key, frames_sha256
from vscan.errors import InvalidArgument, MissingImages
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant import DEFAULT_TENANT, Caller, current_caller, current_tenant
from vscan.specs import DEFAULT_REDUCTION, FrameSampling, ReductionMethod, ReductionSpec, TotalTokens, filled_sampling
from vscan.telemetry.providers import Telemetry
from vscan.tensors import DTYPE_NAMES, dtype_to_proto
from vscan.v1 import encoder_pb2, encoder_pb2_grpc, visual_tokens_pb2
from vscan.visual_tokens import CODEC_VERSION, VisualTokens
from vscan.wire import frame_sampling_from_proto, frame_sampling_to_proto, reduction_from_proto, reduction_to_proto

TILE_TOKENS = 12
SERVICE = "vscan.v1.VisionEncoder"


def image_bytes(name: str, *, size: int = 0) -> bytes:
    """What this encoder takes for an image file, or a video file."""
    return f"image {name}".encode() + bytes(size)


@dataclass
class SmallEncoder(encoder_pb2_grpc.VisionEncoderServicer):
    """Tokens depend on the image or the frames, the reduction and the fingerprint alone. Work waits while `go` is not set."""

    cache: TieredCache
    fingerprint: bytes = b"f" * 32
    pair_fingerprint: bytes = b"p" * 32
    hidden_size: int = 8
    dtype: torch.dtype = torch.float32
    codec_version: int = CODEC_VERSION
    model: str = "small"
    frame_sampling: FrameSampling | None = None
    spoil_reply: Callable[[encoder_pb2.EncodeResponse], Any] = lambda reply: None
    knows_tenants: bool = True  # older encoders do not
    callers: list[Caller] = field(default_factory=list)  # of each Encode
    runs: int = 0  # of what stands for the vision transformer
    describes: int = 0
    arrived: int = 0
    cancelled: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)
    flights: SingleFlight[VisualTokens] = field(default_factory=SingleFlight)

    def __post_init__(self) -> None:
        self.go.set()

    async def Describe(self, request: encoder_pb2.DescribeEncoderRequest, context: Any) -> encoder_pb2.DescribeEncoderResponse:
        self.describes += 1
        return encoder_pb2.DescribeEncoderResponse(
            model=self.model,
            fingerprint=self.fingerprint,
            pair_fingerprint=self.pair_fingerprint,
            hidden_size=self.hidden_size,
            dtype=dtype_to_proto(self.dtype),
            tokens_per_tile=TILE_TOKENS,
            codec_version=self.codec_version,
            speaks_for_tenants=self.knows_tenants and current_caller().speaks_for_tenants,
            defaults=encoder_pb2.EncoderDefaults(
                reduction=reduction_to_proto(DEFAULT_REDUCTION), frame_sampling=frame_sampling_to_proto(self.frame_sampling)
            ),
        )

    async def Encode(self, request: encoder_pb2.EncodeRequest, context: Any) -> encoder_pb2.EncodeResponse:
        self.arrived += 1
        self.callers.append(current_caller())
        spec = reduction_from_proto(request.reduction).filled_from(DEFAULT_REDUCTION)
        kept = self._kept(spec)
        sampling = self._sampling(request)
        media = request.image if sampling is None else request.video
        data = media.data or b"".join(request.video.frames.images) or None
        sha256 = media.sha256
        if data is not None:
            sha256 = frames_sha256(request.video.frames.images) if not media.data else hashlib.sha256(data).digest()
        key = self.key(spec, sha256, sampling)
        try:
            tokens, place = await self._tokens(key, data, sha256, kept)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        report = visual_tokens_pb2.ImageReport(
            sha256=sha256,
            tokens_before=tokens.unreduced_count,
            tokens_after=tokens.kept_count,
            place=int(place),  # type: ignore[arg-type]
        )
        reply = encoder_pb2.EncodeResponse(
            report=report, visual_tokens=tokens.to_proto(), content_key=key, fingerprint=self.fingerprint
        )
        reply.timings.vit_ms = 1.5 if place is Place.ENCODED else 0.0
        self.spoil_reply(reply)
        return reply

    def key(self, spec: ReductionSpec, sha256: bytes, sampling: FrameSampling | None = None) -> bytes:
        """The content key of an image, or a video, here."""
        return content_key(
            codec_version=CODEC_VERSION,
            fingerprint=self.fingerprint,
            reduction=spec,
            dtype=DTYPE_NAMES[self.dtype],
            tenant=current_tenant() if self.knows_tenants else DEFAULT_TENANT,
            media_sha256=sha256,
            sampling=sampling,
        )

    def expected(self, data: bytes, *, kept: int = 2) -> VisualTokens:
        """What this encoder makes of an image; `kept` is 2 of 12 by default (a sixth, the paper's budget)."""
        seed = int.from_bytes(hashlib.sha256(self.fingerprint + hashlib.sha256(data).digest()).digest()[:6], "big")
        return make_tokens(seed, kept=kept, hidden=self.hidden_size, dtype=self.dtype)

    def _kept(self, spec: ReductionSpec) -> int:
        if spec.method is ReductionMethod.NONE or spec.budget is None:
            return TILE_TOKENS
        assert not isinstance(spec.budget, TotalTokens)
        try:
            return spec.budget.tokens(TILE_TOKENS)
        except InvalidArgument as error:
            raise error.below("reduction") from error

    def _sampling(self, request: encoder_pb2.EncodeRequest) -> FrameSampling | None:
        """As the real one fills it; None of an image."""
        if not request.HasField("video"):
            return None
        assert self.frame_sampling is not None
        asked = frame_sampling_from_proto(request.video.sampling, "video.sampling")
        sent_frames = request.video.WhichOneof("source") == "frames"
        try:
            return filled_sampling(asked, self.frame_sampling, sent_frames=sent_frames)
        except InvalidArgument as error:
            raise error.below("video") from error

    async def _tokens(self, key: bytes, data: bytes | None, sha256: bytes, kept: int) -> tuple[VisualTokens, Place]:
        hit = await self.cache.get(key)
        if hit is not None:
            return hit.value, hit.place
        if data is None:
            raise MissingImages([sha256])
        if not data.startswith(b"image "):
            raise InvalidArgument("image.data", "not an image")
        tokens, shared = await self.flights.run(key, lambda: self._encode(key, data, kept))
        return tokens, Place.SHARED if shared else Place.ENCODED

    async def _encode(self, key: bytes, data: bytes, kept: int) -> VisualTokens:
        await self.go.wait()
        self.runs += 1
        tokens = self.expected(data, kept=kept)
        await self.cache.put(key, tokens)
        return tokens


@asynccontextmanager
async def serving(
    encoder: SmallEncoder,
    bind: str = "127.0.0.1:0",
    *,
    telemetry: Telemetry | None = None,
    identities_file: Path | None = None,
) -> AsyncIterator[str]:
    """Serves it on real gRPC, with the interceptors of the real services, and gives its address."""
    settings = RpcSettings(bind=bind, drain_seconds=0, identities_file=identities_file)
    server = RpcServer(settings, services=[SERVICE], telemetry=telemetry)
    encoder_pb2_grpc.add_VisionEncoderServicer_to_server(encoder, server.server)  # type: ignore[no-untyped-call]
    address = await server.start()
    try:
        yield address
    finally:
        await server.stop()
