"""A real gRPC server on loopback whose answers are known: it speaks the contract, but runs no model.

It remembers images and videos by digest as a deployment does, records every request, and can be told to fail, to wait, or to
break off.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from vscan.content_key import frames_sha256
from vscan.errors import InvalidArgument, MissingImages, VScanError
from vscan.rpc.error_details import STATUS_DETAILS_KEY, to_status
from vscan.v1 import decoder_pb2, decoder_pb2_grpc, encoder_pb2, encoder_pb2_grpc, visual_tokens_pb2

TOKENS_BEFORE, TOKENS_AFTER, SURVIVORS = 144, 24, 8
SECONDS, DURATION_SECONDS = (0.0, 0.5), 1.0  # of every video
Media = visual_tokens_pb2.Image | visual_tokens_pb2.Video


class ScriptedDeployment(decoder_pb2_grpc.DecoderServicer, encoder_pb2_grpc.VisionEncoderServicer):
    """Answers `<n> image(s): <last text>`, a word at a time; `, <n> video(s)` behind the images where there are any.

    Of several samples number i says ` <i>` after each word but the first, and they take turns. Who asks for none is answered as
    by a release that knew no samples.
    """

    def __init__(self) -> None:
        self.requests: list[decoder_pb2.GenerateRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.time_left: list[float | None] = []
        self.encodes: list[encoder_pb2.EncodeRequest] = []
        self.lookups: list[encoder_pb2.LookupRequest] = []
        self.known: set[bytes] = set()  # digests, of videos with their sampling behind them (see `key_of`)
        self.fail_with: list[VScanError] = []  # raised by the next calls, one each, before anything is said
        self.drop = 0  # so many of the next calls end with a bare CANCELLED, as gRPC ends those that a server never began
        self.fail_after_first_text: VScanError | None = None
        self.describe_fails_with: list[VScanError] = []
        self.encode_fails_with: list[VScanError] = []
        self.lookup_fails_with: list[VScanError] = []
        self.max_lookup_digests = 256
        self.hold_before = threading.Event()  # set: go on; clear: wait before the first event
        self.hold_before.set()
        self.hold_after_first_text = threading.Event()
        self.hold_after_first_text.set()
        self.entered = threading.Semaphore(0)  # one for each Generate or Encode call that has come
        self.cancelled = threading.Semaphore(0)  # one for each call that ended before its answer
        self.running = self.most_running = 0
        self._lock = threading.Lock()

    @property
    def sizes(self) -> list[int]:
        """Bytes of each Generate request."""
        return [request.ByteSize() for request in self.requests]

    def Generate(self, request: decoder_pb2.GenerateRequest, context: Any) -> Iterator[decoder_pb2.GenerateEvent]:
        self._record(request, context)
        done = threading.Event()
        context.add_callback(lambda: None if done.is_set() else self.cancelled.release())
        self.entered.release()
        try:
            yield from self._answer(request, context)
            done.set()
        finally:
            with self._lock:
                self.running -= 1

    def _record(self, request: decoder_pb2.GenerateRequest, context: Any) -> None:
        with self._lock:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            self.time_left.append(context.time_remaining())
            self.running += 1
            self.most_running = max(self.most_running, self.running)

    def _answer(self, request: decoder_pb2.GenerateRequest, context: Any) -> Iterator[decoder_pb2.GenerateEvent]:
        _wait(self.hold_before, context)
        if self.drop:
            self.drop -= 1
            context.abort(grpc.StatusCode.CANCELLED, "")
        if self.fail_with:
            abort(context, self.fail_with.pop(0))
        media, text = _content(request)
        places = self._resolve(media, context)
        reports = [self._report(each, place, request.report_kept) for each, place in zip(media, places, strict=True)]
        yield decoder_pb2.GenerateEvent(
            started=decoder_pb2.Started(request_id=f"r{len(self.requests)}", images=reports, prompt_tokens=30)
        )
        videos = sum(isinstance(each, visual_tokens_pb2.Video) for each in media)
        shown = f"{len(media) - videos} image(s)" + (f", {videos} video(s)" if videos else "")
        words = f"{shown}: {text}".split(" ")
        limit = request.sampling.max_new_tokens if request.sampling.HasField("max_new_tokens") else len(words)
        samples = request.sampling.n if request.sampling.HasField("n") else 0
        for index, word in enumerate(words[:limit]):
            reason = decoder_pb2.FINISH_REASON_END_OF_SEQUENCE if samples and index == min(limit, len(words)) - 1 else None
            for sample in range(samples or 1):
                token = decoder_pb2.GeneratedToken(token_id=index)
                piece = word if index == 0 else f" {sample} {word}" if sample else f" {word}"
                delta = decoder_pb2.TextDelta(text=piece, tokens=[token], sample=sample, reason=reason)
                yield decoder_pb2.GenerateEvent(delta=delta)
            if self.fail_after_first_text:
                abort(context, self.fail_after_first_text)
            _wait(self.hold_after_first_text, context)
        yield decoder_pb2.GenerateEvent(finished=_finished(len(media), min(limit, len(words)), request))

    def _resolve(self, media: list[Media], context: Any) -> list[visual_tokens_pb2.Place]:
        missing = [each for each in media if each.sha256 and key_of(each) not in self.known]
        if missing:
            kind = "video" if isinstance(missing[0], visual_tokens_pb2.Video) else "image"
            abort(context, MissingImages([each.sha256 for each in missing], field=f"messages[0].parts[0].{kind}"))
        return [self._place(each) for each in media]

    def _place(self, media: Media) -> visual_tokens_pb2.Place:
        key = key_of(media)
        found = visual_tokens_pb2.PLACE_MEMORY if key in self.known else visual_tokens_pb2.PLACE_ENCODED
        self.known.add(key)
        return found

    def _report(self, media: Media, place: visual_tokens_pb2.Place, kept: bool) -> visual_tokens_pb2.ImageReport:
        frames = visual_tokens_pb2.SampledFrames(seconds=SECONDS, duration_seconds=DURATION_SECONDS, interval_seconds=0.5)
        return visual_tokens_pb2.ImageReport(
            sha256=digest_of(media),
            tokens_before=TOKENS_BEFORE,
            tokens_after=TOKENS_AFTER,
            place=place,
            kept=_kept() if kept else None,
            frames=frames if isinstance(media, visual_tokens_pb2.Video) else None,
        )

    def Describe(self, request: Any, context: Any) -> Any:
        if isinstance(request, encoder_pb2.DescribeEncoderRequest):
            return encoder_pb2.DescribeEncoderResponse(
                model="scripted",
                family="llava",
                fingerprint=bytes(32),
                hidden_size=64,
                limits=encoder_pb2.EncoderLimits(
                    max_video_frames=64, max_video_seconds=600, max_lookup_digests=self.max_lookup_digests
                ),
                defaults=encoder_pb2.EncoderDefaults(frame_sampling=visual_tokens_pb2.FrameSampling(frames_per_second=2)),
            )
        if self.describe_fails_with:
            abort(context, self.describe_fails_with.pop(0))
        defaults = decoder_pb2.DecoderDefaults(prune_layers=[4])
        limits = decoder_pb2.DecoderLimits(max_images=16)
        return decoder_pb2.DescribeDecoderResponse(model="scripted", family="llava", layers=8, defaults=defaults, limits=limits)

    def Encode(self, request: encoder_pb2.EncodeRequest, context: Any) -> encoder_pb2.EncodeResponse:
        self.encodes.append(request)
        with self._lock:
            self.metadata.append(dict(context.invocation_metadata()))
        self.entered.release()
        _wait(self.hold_before, context)
        if self.encode_fails_with:
            abort(context, self.encode_fails_with.pop(0))
        media = request.video if request.HasField("video") else request.image
        (place,) = self._resolve([media], context)
        inline = request.reply_form != encoder_pb2.REPLY_FORM_REFERENCE
        return encoder_pb2.EncodeResponse(
            report=self._report(media, place, False),
            visual_tokens=_kept() if inline else None,
            content_key=bytes(32),
            fingerprint=bytes(32),
        )

    def Lookup(self, request: encoder_pb2.LookupRequest, context: Any) -> encoder_pb2.LookupResponse:
        self.lookups.append(request)
        if self.lookup_fails_with:
            abort(context, self.lookup_fails_with.pop(0))
        if len(request.sha256) > self.max_lookup_digests:
            abort(context, InvalidArgument("sha256", f"{len(request.sha256)} digests"))
        sampling = request.video_sampling if request.HasField("video_sampling") else None
        keys = [digest if sampling is None else video_key(digest, sampling) for digest in request.sha256]
        places = [visual_tokens_pb2.PLACE_MEMORY if key in self.known else visual_tokens_pb2.PLACE_UNSPECIFIED for key in keys]
        return encoder_pb2.LookupResponse(
            results=[
                encoder_pb2.LookupResult(sha256=digest, place=place)
                for digest, place in zip(request.sha256, places, strict=True)
            ]
        )


@contextmanager
def serving(
    deployment: ScriptedDeployment,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[str]:
    """Serves both services on one loopback port and gives its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=32))
    decoder_pb2_grpc.add_DecoderServicer_to_server(deployment, server)  # type: ignore[no-untyped-call]
    # Both services have a Describe; one servicer answers each by its request.
    encoder_pb2_grpc.add_VisionEncoderServicer_to_server(deployment, server)  # type: ignore[no-untyped-call]
    address = f"{host}:{port}"
    bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"{host}:{bound}"
    finally:
        server.stop(0).wait()  # before those that are held go on: they would still answer; they see that their calls ended
        deployment.hold_before.set()
        deployment.hold_after_first_text.set()


def abort(context: Any, error: VScanError) -> None:
    """Ends the call as a service does."""
    context.set_trailing_metadata(((STATUS_DETAILS_KEY, to_status(error)),))
    context.abort(error.status, error.message)


def digest_of(media: Media) -> bytes:
    """The name of an image or video, however it was sent."""
    if isinstance(media, visual_tokens_pb2.Video) and media.frames.images:
        return frames_sha256(media.frames.images)
    return media.sha256 or hashlib.sha256(media.data).digest()


def key_of(media: Media) -> bytes:
    """Under what the deployment remembers it."""
    digest = digest_of(media)
    return video_key(digest, media.sampling) if isinstance(media, visual_tokens_pb2.Video) else digest


def video_key(digest: bytes, sampling: visual_tokens_pb2.FrameSampling) -> bytes:
    """A video's: other frames have other tokens."""
    return digest + b"video" + sampling.SerializeToString()


def _wait(event: threading.Event, context: Any) -> None:
    while not event.wait(0.01):
        if not context.is_active():
            return


def _content(request: decoder_pb2.GenerateRequest) -> tuple[list[Media], str]:
    if request.WhichOneof("prompt") == "raw":
        return [*request.raw.images, *request.raw.videos], request.raw.text
    parts = [part for message in request.chat.messages for part in message.parts]
    texts = [part.text for part in parts if part.WhichOneof("content") == "text"]
    return [getattr(part, kind) for part in parts if (kind := part.WhichOneof("content")) not in (None, "text")], texts[-1]


def _kept() -> visual_tokens_pb2.VisualTokens:
    return visual_tokens_pb2.VisualTokens(
        kept_indices=[1, 5],
        picked_by=[visual_tokens_pb2.PICKED_BY_LOCAL, visual_tokens_pb2.PICKED_BY_GLOBAL],
        merged_into=[0, 0, 1, 0, 1, 1],
        tiles=[visual_tokens_pb2.Tile(rows=2, columns=3, kept_count=2)],
        unreduced_count=6,
    )


def _finished(images: int, tokens: int, request: decoder_pb2.GenerateRequest) -> decoder_pb2.Finished:
    survivors = [decoder_pb2.SurvivingTokens(rows=[0, 2])] * images if request.report_kept else []
    return decoder_pb2.Finished(
        reason=decoder_pb2.FINISH_REASON_END_OF_SEQUENCE,
        usage=decoder_pb2.Usage(
            prompt_tokens=30,
            visual_tokens=images * TOKENS_AFTER,
            visual_tokens_unreduced=images * TOKENS_BEFORE,
            visual_tokens_average=16.0 * images,
            completion_tokens=tokens * max(request.sampling.n, 1),
        ),
        timings=decoder_pb2.GenerateTimings(prefill_ms=2.0, total_ms=5.0),
        pruning=[decoder_pb2.PruneReport(layer=4, tokens_before=TOKENS_AFTER, tokens_after=SURVIVORS, survivors=survivors)],
        seed=request.sampling.seed,
        samples=[
            decoder_pb2.FinishedSample(
                sample=sample, reason=decoder_pb2.FINISH_REASON_END_OF_SEQUENCE, completion_tokens=tokens
            )
            for sample in range(request.sampling.n)
        ],
    )
