"""From the bytes of images and videos to visual tokens.

    pre: decode, resize          core: transformer, reduction      post: cache, reply
    thread pools          ──▶    one thread, batched        ──▶    the request's own task

A GPU has the work of two batches at a time: while one is computed, pixels of the next come and tokens of the last one go.

Videos take long to decode: they have threads and a waiting room apart from those of images. A request takes its place before it
is decoded and keeps it until its batch starts. Behind the core there is no more than the calls that the server admits at once.
Whose caller goes while it is decoded keeps its place until its thread is free: at once, or after the picture it is at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from threading import Event

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, StatusCode, Tracer, get_current_span, use_span
from opentelemetry.util.types import AttributeValue
from PIL import Image

from encoder_service.batcher import Batcher
from encoder_service.device_pass import DeviceLost, DevicePass, Interval, PassResult, TileJob
from encoder_service.media import Media, MediaLimits
from encoder_service.reduction.budget import plan_reduction, plan_tiles
from encoder_service.reduction.controls import tile_seed
from encoder_service.reply_size import TooLargeToSend
from encoder_service.vision.base import PreparedImage, VisionModel
from encoder_service.waiting_room import Place, WaitingRoom
from vscan.errors import InternalError, InvalidArgument
from vscan.heartbeat import Heartbeat
from vscan.specs import ReductionSpec
from vscan.telemetry import names
from vscan.telemetry.metrics import EncoderMetrics
from vscan.visual_tokens import VisualTokens

_WARM_UP_SIDE_PIXELS = 64
_BEGUN_ON_GPU = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineBounds:
    """How much at once, and how long to wait for company."""

    max_queue: int  # images, and as many videos
    max_queue_bytes: int  # the same
    max_batch_tiles: int
    batch_wait_ms: float
    image_workers: int
    video_workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One image's or video's tokens, and the milliseconds that each part took."""

    value: VisualTokens
    queue_ms: float
    decode_image_ms: float
    vit_ms: float
    reduce_ms: float


class _Lane:
    """Where images wait and are decoded, or videos."""

    def __init__(self, what: str, threads: int, bounds: PipelineBounds, on_change: Callable[[int], None]) -> None:
        self.room = WaitingRoom(what, max_places=bounds.max_queue, max_bytes=bounds.max_queue_bytes, on_change=on_change)
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix=what)
        self.turns = asyncio.Semaphore(threads)


class Pipeline:
    """Encodes images and videos, many at once. Belongs to one event loop."""

    def __init__(
        self,
        model: VisionModel,
        limits: MediaLimits,
        bounds: PipelineBounds,
        *,
        tracer: Tracer,
        metrics: EncoderMetrics,
    ) -> None:
        self._model = model
        self._limits = limits
        self._tracer = tracer
        self._metrics = metrics
        self._device_pass = DevicePass(model, bounds.max_batch_tiles)
        self._max_batch_tiles = bounds.max_batch_tiles
        self._images = _Lane("images", bounds.image_workers, bounds, partial(metrics.waiting, "image"))
        self._videos = _Lane("videos", bounds.video_workers, bounds, partial(metrics.waiting, "video"))
        for media in ("image", "video"):
            metrics.queue(media, bounds.max_queue)
        self._last_pass_s = 0.0  # when the last device pass ended
        self._batcher: Batcher[TileJob, PassResult] = Batcher(
            self._begin_batch,
            max_size=bounds.max_batch_tiles,
            max_wait_ms=bounds.batch_wait_ms,
            max_begun=_BEGUN_ON_GPU if model.device.type == "cuda" else 1,
        )

    async def start(self, reduction: ReductionSpec, on_death: Callable[[str], None]) -> None:
        """Starts the worker and runs one image through it, so that the first request pays for no warm-up.

        `reduction` is what most will ask for, filled. `on_death` is told, once, why nothing can be encoded any more.

        Raises InternalError: the model cannot encode.
        """
        self._batcher.start(on_death)
        scan = self._model.scan
        plan = plan_reduction(reduction, self._model.grid, scan.window, scan.share)
        try:
            await self._batcher.run(lambda: self._device_pass.prepare(plan))
        except DeviceLost as error:
            raise InternalError("the device was lost before anything was encoded") from error
        blank = Image.new("RGB", (_WARM_UP_SIDE_PIXELS, _WARM_UP_SIDE_PIXELS))
        job = self._job(self._device_pass.staged(self._model.preprocess(blank)), bytes(32), reduction)
        with self._images.room.enter(0) as place:
            await self._batcher.submit(job, self._max_batch_tiles, place)  # a full batch waits for no company

    async def encode(
        self, media: Media, media_sha256: bytes, reduction: ReductionSpec, max_bytes: int | None = None
    ) -> Encoded:
        """Encodes one image or video as a filled spec says.

        Raises:
            TooLargeToSend: it is certain that there will be more than `max_bytes` of tokens; found before the transformer runs.
            InvalidArgument: the image or video, or the spec for its tiles.
            ResourceExhausted: too many wait.
            Unavailable: the service is stopping, or its worker has died.
        """
        self._batcher.refuse_if_ended()
        lane = self._videos if media.is_video else self._images
        with lane.room.enter(media.size_bytes) as place:
            admitted_ns = time.time_ns()
            prepared, decoded = await self._decoded(media, lane, place)
            job = self._job(prepared, media_sha256, reduction)
            least_bytes = job.least_kept * self._model.hidden_size * self._model.dtype.itemsize
            if max_bytes is not None and least_bytes > max_bytes:
                raise TooLargeToSend(least_bytes)
            result = await self._batcher.submit(job, job.size, place)
        queued = Interval(decoded.end_ns, max(decoded.end_ns, result.vit.start_ns))
        # By the clock of spans, which may be set back.
        queue_ms = max(0.0, Interval(admitted_ns, decoded.start_ns).ms) + queued.ms
        self._metrics.waited(queue_ms)
        self._record_spans(queued, job, result)
        return Encoded(
            value=result.value,
            queue_ms=queue_ms,
            decode_image_ms=decoded.ms,
            vit_ms=result.vit.ms,
            reduce_ms=result.reduce.ms,
        )

    @property
    def hearts(self) -> Sequence[Heartbeat]:
        """Of what must never stand still. Decoding is not among them: a video may take as long as it likes."""
        return self._batcher.hearts

    async def aclose(self) -> None:
        """Encodes nothing more; who waits gets Unavailable."""
        await self._batcher.aclose()
        for lane in (self._images, self._videos):
            await asyncio.to_thread(lane.threads.shutdown)

    async def _decoded(self, media: Media, lane: _Lane, place: Place) -> tuple[PreparedImage, Interval]:
        stop = Event()
        context = copy_context()  # so that the span of the thread's work lies below the request's
        async with lane.turns:
            await lane.room.may_decode()
            self._batcher.refuse_if_ended()
            work = asyncio.get_running_loop().run_in_executor(lane.threads, context.run, self._prepare, media, stop)
            try:
                prepared, when = await asyncio.shield(work)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.gather(work, return_exceptions=True)  # until then its thread is taken, and its memory
                raise
            place.prepared(prepared.pixels.nbytes)
        return prepared, when

    def _prepare(self, media: Media, stop: Event) -> tuple[PreparedImage, Interval]:
        """Bytes to what the transformer takes; in a thread of the pool."""
        start = time.time_ns()
        with self._tracer.start_as_current_span(names.SPAN_DECODE_IMAGE, record_exception=False):
            prepared = self._device_pass.staged(media.prepare(self._model, self._limits, stop))
        return prepared, Interval(start, time.time_ns())

    def _job(self, prepared: PreparedImage, media_sha256: bytes, reduction: ReductionSpec) -> TileJob:
        tiles, scan = range(len(prepared.grids)), self._model.scan
        try:
            valid = prepared.valid if scan.skip_padding else None
            plans = plan_tiles(reduction, prepared.grids, scan.window, scan.share, counted=prepared.counted, valid=valid)
        except InvalidArgument as error:
            raise error.below("reduction") from error
        return TileJob(
            image=prepared,
            plans=plans,
            tile_seeds=tuple(tile_seed(reduction.seed or 0, media_sha256, tile) for tile in tiles),
            span=get_current_span().get_span_context(),
        )

    def _begin_batch(self, jobs: Sequence[TileJob]) -> Callable[[], list[PassResult]]:
        """In the device's thread. The batch is a trace of its own, linked to every request that it served."""
        began_s = time.perf_counter()
        tiles = sum(job.tiles for job in jobs)
        span = self._tracer.start_span(
            names.SPAN_VIT_BATCH,
            context=Context(),
            links=[Link(job.span) for job in jobs if job.span.is_valid],
            attributes={
                names.ATTR_BATCH_IMAGES: len(jobs),
                names.ATTR_BATCH_TILES: tiles,
                names.ATTR_DEVICE: str(self._model.device),
            },
        )
        with _ended_by_errors(span):
            ending = self._device_pass.begin(jobs)

        def results() -> list[PassResult]:
            with _ended_by_errors(span):
                found = ending()
            pass_ms = self._pass_ms(began_s)
            with use_span(span, end_on_exit=True):  # so that the figures can name it
                self._metrics.batch(images=len(jobs), tiles=tiles, vit_ms=found[0].vit.ms, pass_ms=pass_ms)
            return [replace(result, batch_span=span.get_span_context()) for result in found]

        return results

    def _pass_ms(self, began_s: float) -> float:
        """Of a pass that has just ended, what the one before had not. In the thread that waits for results, in their order."""
        ended_s = time.perf_counter()
        alone_s = max(began_s, self._last_pass_s)
        self._last_pass_s = ended_s
        return (ended_s - alone_s) * 1e3

    def _record_spans(self, queued: Interval, job: TileJob, result: PassResult) -> None:
        """The request's share of a batch, as spans of its own trace."""
        links = [Link(result.batch_span)] if result.batch_span is not None and result.batch_span.is_valid else []
        counts = {
            names.ATTR_TOKENS_BEFORE: result.value.unreduced_count,
            names.ATTR_TOKENS_AFTER: result.value.kept_count,
        }
        self._record(names.SPAN_QUEUE, queued, {}, [])
        self._record(names.SPAN_VIT, result.vit, {names.ATTR_TILES: job.tiles}, links)
        self._record(names.SPAN_REDUCE, result.reduce, counts, links)

    def _record(self, name: str, when: Interval, attributes: dict[str, AttributeValue], links: list[Link]) -> None:
        span = self._tracer.start_span(name, start_time=when.start_ns, attributes=attributes, links=links)
        span.end(when.end_ns)


@contextmanager
def _ended_by_errors(span: Span) -> Iterator[None]:
    """What is raised ends the span; its text stays here."""
    try:
        yield
    except BaseException as error:
        span.set_status(StatusCode.ERROR, type(error).__name__)
        span.end()
        raise
