"""Makes an encoder of its settings."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from embedded_model import checkpoint_dir
from encoder_service.cache.replica_turns import ReplicaTurns
from encoder_service.config import EncoderSettings
from encoder_service.identity import identify
from encoder_service.image_encoder import ImageEncoder
from encoder_service.pipeline import Pipeline, PipelineBounds
from encoder_service.reduction.budget import plan_reduction
from encoder_service.service import SERVICE, EncoderService
from encoder_service.servicer import EncoderServicer
from encoder_service.vision.base import VisionModel
from encoder_service.vision.registry import load_vision
from vscan.cache.settings import check_cache_settings
from vscan.cache.tiers import TieredCache
from vscan.checkpoint import Checkpoint
from vscan.device import check_compiles, choose_device, choose_dtype
from vscan.errors import InvalidArgument, StartupError
from vscan.rpc.address import parse_address
from vscan.rpc.listening import check_free
from vscan.rpc.server import RpcServer
from vscan.specs import FrameSampling, ReductionSpec
from vscan.telemetry.metrics import CacheMetrics, EncoderMetrics, TokenMetrics
from vscan.telemetry.providers import Telemetry
from vscan.v1 import encoder_pb2_grpc

_EMBEDDED_NAME = "embedded"
OnStopping = Callable[[float], None]
_MOST_DEFAULT_IMAGE_WORKERS = 4


async def build(
    settings: EncoderSettings, telemetry: Telemetry, on_stopping: OnStopping = lambda seconds: None
) -> EncoderService:
    """A loaded encoder, not yet started. To be called inside a running event loop, which waits while the model is loaded.

    Raises:
        StartupError: whatever keeps it from starting, in one line.
    """
    check_cache_settings(settings)
    rpc = RpcServer(settings, services=[SERVICE], telemetry=telemetry, on_stopping=on_stopping)
    check_free(parse_address(settings.bind))  # a port in use is told before a large model is read
    checkpoint = Checkpoint.open(settings.model or checkpoint_dir())
    model = _load(settings, checkpoint)
    name, rounded_to = _name(settings, checkpoint), _rounded_to(settings)
    identity = identify(checkpoint, model, name, max_video_frames=settings.max_video_frames, rounded_to=rounded_to)
    model.pack()  # after its weights were read: unpacked again they would be there twice
    if settings.compile:
        model.compile()
    metrics = EncoderMetrics(telemetry.meter)
    pipeline = Pipeline(model, settings.media_limits, _bounds(settings), tracer=telemetry.tracer, metrics=metrics)
    cache = TieredCache.from_settings(settings, recorder=CacheMetrics(telemetry.meter), tracer=telemetry.tracer)
    encoder = ImageEncoder(
        identity,
        pipeline,
        cache,
        grid=model.grid,
        defaults=_defaults(settings, model),
        frame_sampling=_frame_sampling(settings, model),
        limits=settings.media_limits,
        tracer=telemetry.tracer,
        metrics=metrics,
        token_metrics=TokenMetrics(telemetry.meter),
        turns=ReplicaTurns.of(cache, lease_seconds=settings.lease_seconds, tracer=telemetry.tracer),
        body_codec=settings.body_codec,
    )
    servicer = EncoderServicer(
        encoder,
        max_lookup_digests=settings.max_lookup_digests,
        max_queue=settings.max_queue,
        max_message_bytes=settings.max_message_bytes,
    )
    encoder_pb2_grpc.add_VisionEncoderServicer_to_server(servicer, rpc.server)  # type: ignore[no-untyped-call]
    return EncoderService(rpc, encoder, pipeline, cache)


async def serve(settings: EncoderSettings, telemetry: Telemetry, on_stopping: OnStopping = lambda seconds: None) -> None:
    """Builds, starts, waits for the end, stops."""
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    service = await build(settings, telemetry, on_stopping)
    try:
        await service.start()
        await service.wait()
    finally:
        await service.stop()


def _load(settings: EncoderSettings, checkpoint: Checkpoint) -> VisionModel:
    device = choose_device(settings.device)
    if settings.compile:
        check_compiles(device)
    dtype = choose_dtype(settings.dtype, device)
    return load_vision(
        checkpoint,
        dtype=dtype,
        device=device,
        shallow_layer=settings.shallow_layer,
        window=settings.window,
        skip_padding=settings.skip_padding,
        video_max_tokens=settings.video_max_tokens,
    )


def _name(settings: EncoderSettings, checkpoint: Checkpoint) -> str:
    return settings.model_alias or (_EMBEDDED_NAME if settings.model is None else checkpoint.name)


def _rounded_to(settings: EncoderSettings) -> str | None:
    return None if settings.cache_tokens == "full" else settings.cache_tokens


def _defaults(settings: EncoderSettings, model: VisionModel) -> ReductionSpec:
    try:
        plan_reduction(settings.reduction, model.grid, model.scan.window)
    except InvalidArgument as error:
        raise StartupError(f"the default reduction does not fit the model: {error}") from error
    return settings.reduction


def _frame_sampling(settings: EncoderSettings, model: VisionModel) -> FrameSampling | None:
    if settings.frame_sampling is not None and model.frame_sampling is None:
        raise StartupError(f"video_frames, video_frames_per_second: {model.family} takes no videos")
    return settings.frame_sampling or model.frame_sampling


def _bounds(settings: EncoderSettings) -> PipelineBounds:
    image_workers = settings.image_workers or min(_MOST_DEFAULT_IMAGE_WORKERS, os.cpu_count() or 1)
    return PipelineBounds(
        max_queue=settings.max_queue,
        max_queue_bytes=settings.max_queue_bytes,
        max_batch_tiles=settings.max_batch_tiles,
        batch_wait_ms=settings.batch_wait_ms,
        image_workers=image_workers,
        video_workers=settings.video_workers or max(1, image_workers // 2),
    )
