"""Makes a decoder of its settings: the only place where its parts meet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import torch

import embedded_model
from decoder_service.answering import Answering, Stage2
from decoder_service.config import DecoderSettings
from decoder_service.constraint.grammars import Grammars
from decoder_service.constraint.vocabulary import Vocabulary, read_vocabulary
from decoder_service.detokenize import read_decoder
from decoder_service.encoder_link import EncoderLink
from decoder_service.engine import Engine
from decoder_service.engine_loop import EngineLoop
from decoder_service.engine_report import EngineReport
from decoder_service.images import ImageResolver
from decoder_service.kv_cache.cache import KvCache
from decoder_service.kv_cache.memory import count_pages
from decoder_service.kv_cache.segments import PageLayout, split_layers
from decoder_service.language.base import LanguageModel
from decoder_service.language.registry import load_language
from decoder_service.limits import Limits, SamplingDefaults
from decoder_service.observation import Observer
from decoder_service.pairing import Fit
from decoder_service.prompt import PromptWriter
from decoder_service.pruning import DEFAULT_KEEP, default_prune
from decoder_service.readiness import ENGINE_DEAD, ENGINE_WEDGED, Readiness
from decoder_service.runner.attention import leave_attention_uncompiled
from decoder_service.runner.runner import Runner
from decoder_service.runner.varlen import block_rows
from decoder_service.scheduler import Scheduler
from decoder_service.servicer import SERVICE, DecoderServicer, Identity
from decoder_service.warm_up import warm_up, warm_up_pages
from vscan.cache.settings import check_cache_settings
from vscan.cache.tiers import TieredCache
from vscan.checkpoint import Checkpoint
from vscan.device import check_compiles, choose_device, choose_dtype
from vscan.errors import InternalError, InvalidArgument, StartupError
from vscan.rpc.bearer import Bearer, TokenFile
from vscan.rpc.channel import ClientTls, open_channel
from vscan.rpc.identities import Identities
from vscan.rpc.renewed_channel import RenewedChannel
from vscan.rpc.server import RpcServer
from vscan.specs import KeepRatio, PruneSpec
from vscan.telemetry.decoder_metrics import EngineMetrics
from vscan.telemetry.metrics import CacheMetrics
from vscan.telemetry.providers import Telemetry
from vscan.v1 import decoder_pb2_grpc

EMBEDDED_NAME = "embedded"
OnStopping = Callable[[float], None]
_ENGINE_STOP_SECONDS = 5.0  # for the step under way


@dataclass(frozen=True, slots=True)
class RunningDecoder:
    """A decoder whose port is open and whose model is loaded; ready once its encoder fits."""

    server: RpcServer
    address: str  # host:port
    readiness: Readiness
    engine: EngineLoop
    resolver: ImageResolver


async def serve(settings: DecoderSettings, telemetry: Telemetry, on_stopping: OnStopping = lambda seconds: None) -> None:
    """Runs a decoder until it is told to stop.

    Raises:
        StartupError: it cannot start.
        InternalError: its engine died; it needs a restart.
    """
    async with running_decoder(settings, telemetry, on_stopping) as decoder:
        await decoder.server.wait_for_termination()
        if decoder.readiness.problem("engine"):
            raise InternalError(ENGINE_DEAD)


@asynccontextmanager
async def running_decoder(
    settings: DecoderSettings, telemetry: Telemetry, on_stopping: OnStopping = lambda seconds: None
) -> AsyncIterator[RunningDecoder]:
    """Opens the port, loads and warms the model, starts to look for the encoder; on leaving drains and stops everything.

    Raises:
        StartupError: what cannot work, on one line.
    """
    check_cache_settings(settings)
    async with AsyncExitStack() as stack:
        bearer = _bearer(settings)
        channel = await stack.enter_async_context(_encoder_channel(settings, telemetry))
        server = RpcServer(
            settings,
            services=[SERVICE],
            telemetry=telemetry,
            on_stopping=on_stopping,
            identities_unfit=partial(_identities_unfit, settings),
        )
        servicer = DecoderServicer()
        decoder_pb2_grpc.add_DecoderServicer_to_server(servicer, server.server)  # type: ignore[no-untyped-call]
        readiness = Readiness(lambda ready, why: server.set_ready(SERVICE, ready, why))
        address = await server.start()
        stack.push_async_callback(server.stop)
        await readiness.set("encoder", "the encoder has not been reached yet")

        half = await asyncio.to_thread(_load, settings)
        engine = _engine(settings, telemetry, half, partial(_on_death, server, readiness))
        engine.start()
        stack.push_async_callback(_stop_engine, engine)
        await warm_up(engine, half.language, half.prune_layers)
        server.watch_over(engine.heart)  # not before: first steps may compile for minutes
        engine.take_steps()  # nor are they what later ones are like

        cache = TieredCache.from_settings(settings, recorder=CacheMetrics(telemetry.meter), tracer=telemetry.tracer)
        stack.push_async_callback(cache.aclose)
        await cache.decide()
        fit = _fit(half, server)
        resolver = ImageResolver(_link(settings, fit, readiness, channel, bearer), cache, tracer=telemetry.tracer)
        stack.push_async_callback(resolver.aclose)
        grammars = _grammars(settings, half)
        stack.callback(grammars.close)
        servicer.open(
            _answering(settings, half, resolver, engine, grammars),
            Observer(telemetry, model=half.name),
            _identity(settings, half),
            half.vocabulary,
        )
        metrics = EngineMetrics(telemetry.meter)
        metrics.capacity(running=settings.max_running, waiting=settings.max_queue)
        _keep_reporting(stack, EngineReport(engine, metrics))
        stack.push_async_callback(server.stop)  # first of all: what still runs needs everything else
        await resolver.start()
        await readiness.set("model", None)
        yield RunningDecoder(server, address, readiness, engine, resolver)


@dataclass(frozen=True, slots=True)
class _Half:
    """What the checkpoint gave."""

    checkpoint: Checkpoint
    name: str
    language: LanguageModel
    writer: PromptWriter
    vocabulary: Vocabulary
    prune_layers: tuple[int, ...]
    max_context_tokens: int


def _load(settings: DecoderSettings) -> _Half:
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    device = choose_device(settings.device)
    if settings.compile:
        check_compiles(device)
    directory = settings.model or Path(embedded_model.checkpoint_dir())
    checkpoint = Checkpoint.open(directory)
    language = load_language(checkpoint, dtype=choose_dtype(settings.dtype, device), device=device)
    if settings.compile:
        leave_attention_uncompiled()
        language.compile()
    return _Half(
        checkpoint=checkpoint,
        name=settings.model_alias or (checkpoint.name if settings.model else EMBEDDED_NAME),
        language=language,
        writer=PromptWriter.open(checkpoint, language.tokens),
        vocabulary=read_vocabulary(directory, language.tokens, model_ids=language.shape.vocab_size),
        prune_layers=settings.prunes_before(language.shape.layers),
        max_context_tokens=_max_context_tokens(settings, language.shape.max_context_tokens),
    )


def _max_context_tokens(settings: DecoderSettings, positions: int) -> int:
    wanted = settings.max_context_tokens or positions
    if wanted > positions:
        raise StartupError(f"max_context_tokens: {wanted}, but the model has {positions} positions")
    return wanted


@asynccontextmanager
async def _encoder_channel(settings: DecoderSettings, telemetry: Telemetry) -> AsyncIterator[RenewedChannel]:
    files = ClientTls(
        ca_file=settings.encoder_tls_ca_file,
        cert_file=settings.encoder_tls_cert_file,
        key_file=settings.encoder_tls_key_file,
    )

    def connect(credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        return open_channel(
            settings.encoder_address,
            tls=credentials,
            insecure=settings.encoder_insecure,
            max_message_bytes=settings.max_message_bytes,
            tracer_provider=telemetry.tracer_provider,
        )

    try:
        channel = RenewedChannel(connect, files if settings.encoder_tls else None)
    except InvalidArgument as error:
        if error.field == "target":
            reason = "is beyond this machine: set `encoder_tls`, or allow plaintext with `encoder_insecure`"
            raise StartupError(f"encoder_address: {settings.encoder_address} {reason}") from error
        raise StartupError(f"encoder_{error.field.replace('.', '_')}: {error.problem}") from error
    try:
        yield channel
    finally:
        await channel.aclose()


def _bearer(settings: DecoderSettings) -> Bearer:
    if settings.encoder_token_file is None:
        return Bearer(None)
    try:
        return Bearer(TokenFile(settings.encoder_token_file, "encoder_token_file"))
    except InvalidArgument as error:
        raise StartupError(str(error)) from error


def _identities_unfit(settings: DecoderSettings, identities: Identities) -> str | None:
    """Without a credential the encoder takes all calls of this decoder for one tenant's, and would mix up the images of all."""
    if not identities.names_other_tenants or settings.encoder_knows_us:
        return None
    return (
        "it names tenants, and nothing shows this decoder to its encoder: "
        "set `encoder_tls_cert_file` (with `encoder_tls`) or `encoder_token_file`"
    )


def _engine(
    settings: DecoderSettings, telemetry: Telemetry, half: _Half, on_death: Callable[[], Coroutine[Any, Any, None]]
) -> EngineLoop:
    layout = PageLayout(
        split_layers(half.language.shape.layers, half.prune_layers),
        settings.kv_block_rows or block_rows(half.language.kv_shape, half.language.dtype, half.language.device),
        half.language.kv_shape,
    )
    longest_pages = layout.pages([half.max_context_tokens] * len(layout.segments))
    pages = count_pages(
        settings.kv_cache_bytes,
        layout,
        least=warm_up_pages(half.language, layout),
        enough=2 * settings.max_running * longest_pages,
        device=half.language.device,
    )
    cache = KvCache(layout, pages=pages, reuse=settings.kv_reuse)
    engine = Engine(
        runner=Runner(half.language, layout, pages=pages),
        cache=cache,
        scheduler=Scheduler(
            cache,
            max_context_tokens=half.max_context_tokens,
            max_running=settings.max_running,
            max_waiting=settings.max_queue,
            max_step_rows=settings.max_step_rows,
        ),
        decode=read_decoder(half.checkpoint.directory),
        tracer=telemetry.tracer,
    )
    loop = asyncio.get_running_loop()

    def tell() -> None:  # on the engine's thread
        asyncio.run_coroutine_threadsafe(on_death(), loop)

    return EngineLoop(engine, on_death=tell, max_unread_events=settings.max_unread_events)


async def _on_death(server: RpcServer, readiness: Readiness) -> None:
    """Without its engine this process is of no use: it says so and ends, so that whoever started it starts another."""
    await readiness.set("engine", ENGINE_DEAD)
    server.ask_to_stop()


async def _stop_engine(engine: EngineLoop) -> None:
    """Raises InternalError where a step does not end: whoever waits for this process must see that something was wrong."""
    if not await asyncio.to_thread(engine.stop, _ENGINE_STOP_SECONDS):
        raise InternalError(ENGINE_WEDGED)


def _fit(half: _Half, server: RpcServer) -> Fit:
    return Fit(
        pair_fingerprint=half.checkpoint.pair_fingerprint(),
        hidden_size=half.language.shape.hidden_size,
        has_tenants=lambda: (identities := server.identities()) is not None and identities.names_other_tenants,
    )


def _link(settings: DecoderSettings, fit: Fit, readiness: Readiness, channel: RenewedChannel, bearer: Bearer) -> EncoderLink:
    return EncoderLink(
        channel,
        fit,
        on_pairing=lambda problem: readiness.set("encoder", problem),
        refresh_seconds=settings.encoder_refresh_seconds,
        retry_seconds=settings.encoder_retry_seconds,
        encode_seconds=settings.encoder_timeout_seconds,
        bearer=bearer,
    )


def _grammars(settings: DecoderSettings, half: _Half) -> Grammars:
    return Grammars(
        half.vocabulary,
        max_compile_ms=settings.max_constraint_compile_ms,
        max_remembered=settings.max_constraints_remembered,
    )


def _answering(
    settings: DecoderSettings, half: _Half, resolver: ImageResolver, engine: EngineLoop, grammars: Grammars
) -> Answering:
    return Answering(
        writer=half.writer,
        resolver=resolver,
        engine=engine,
        grammars=grammars,
        limits=_limits(settings, half),
        sampling=SamplingDefaults(max_new_tokens=min(settings.default_max_new_tokens, settings.max_new_tokens)),
        stage2=Stage2(
            layers=half.language.shape.layers,
            prune_layers=half.prune_layers,
            defaults=_prune(settings, half),
            keep=DEFAULT_KEEP if settings.prune_keep is None else KeepRatio(settings.prune_keep),
        ),
        positions=half.language.positions_taken,
    )


def _prune(settings: DecoderSettings, half: _Half) -> PruneSpec:
    family = default_prune(half.language.default_positions)
    return replace(family, rater=settings.prune_rater, positions=settings.prune_positions or family.positions)


def _limits(settings: DecoderSettings, half: _Half) -> Limits:
    of_model = {
        "max_context_tokens": half.max_context_tokens,
        "max_positions": half.language.shape.max_context_tokens,
        "max_videos": settings.max_videos if half.language.takes_videos else 0,
        "max_samples": min(settings.max_samples, settings.max_running, settings.max_step_rows),  # they decode together
    }
    return Limits(**of_model, **{field: getattr(settings, field) for field in Limits.__slots__ if field not in of_model})


def _identity(settings: DecoderSettings, half: _Half) -> Identity:
    return Identity(
        model=half.name,
        family=half.language.family,
        takes_videos=half.language.takes_videos,
        pair_fingerprint=half.checkpoint.pair_fingerprint(),
        raw_prompts=settings.raw_prompts_allowed,
    )


def _keep_reporting(stack: AsyncExitStack, report: EngineReport) -> None:
    task = asyncio.create_task(report.run())

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)
