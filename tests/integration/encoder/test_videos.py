"""Videos over real gRPC: files and frames give the same tokens, are found by name, share budgets, and are refused by limit."""

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest
from PIL import Image

from tests.integration.encoder.test_trace import Watched
from tests.support.bad_images import saved
from tests.support.encoder import LLAVA15, RunningEncoder, running_encoder
from tests.support.llava_next import LLAVA_NEXT
from tests.support.qwen import QWEN
from tests.support.until import until
from tests.support.video_llava import FRAME_TOKENS, shared_video_llava
from tests.support.videos import full_decode, numbered, video
from vscan.cache.place import Place
from vscan.content_key import content_key, frames_sha256
from vscan.errors import InvalidArgument, MissingImages, ResourceExhausted, StartupError
from vscan.specs import FrameCount, FrameRate
from vscan.telemetry import names
from vscan.v1 import encoder_pb2 as pb
from vscan.v1 import visual_tokens_pb2 as tokens_pb
from vscan.visual_tokens import CODEC_VERSION, PickedBy, SampledFrames, VisualTokens
from vscan.wire import reduction_from_proto

SETTINGS: dict[str, Any] = {"shallow_layer": None, "window": None}


def video_llava(**changes: Any) -> Any:
    return running_encoder(model=shared_video_llava()[0], **SETTINGS, **changes)


def qwen(**changes: Any) -> Any:
    return running_encoder(model=QWEN, **SETTINGS, **changes)


def request(data: bytes = b"", *, reduction: Any = None, sampling: Any = None, **source: Any) -> pb.EncodeRequest:
    source = source or {"data": data}
    return pb.EncodeRequest(video=tokens_pb.Video(**source, sampling=sampling), reduction=reduction)


def frames(*sizes: tuple[int, int]) -> tokens_pb.VideoFrames:
    return tokens_pb.VideoFrames(images=[saved(numbered(index, size), "PNG") for index, size in enumerate(sizes)])


def budget(**amount: Any) -> tokens_pb.ReductionSpec:
    return tokens_pb.ReductionSpec(budget=tokens_pb.Budget(**amount), method=tokens_pb.REDUCTION_METHOD_GLOBAL)


async def encoded(encoder: RunningEncoder, asked: pb.EncodeRequest) -> tuple[VisualTokens, pb.EncodeResponse]:
    response: pb.EncodeResponse = await encoder.stub.Encode(asked, timeout=60)
    return VisualTokens.from_proto(response.visual_tokens), response


async def test_a_file_is_encoded_once_and_then_found_by_its_name_and_sampling() -> None:
    data = video(frames=30)
    watched = Watched()
    async with video_llava(telemetry=watched.telemetry) as encoder:
        described = await encoder.stub.Describe(pb.DescribeEncoderRequest())
        defaults = reduction_from_proto(described.defaults.reduction)
        value, response = await encoded(encoder, request(data))
        report = response.report
        times = SampledFrames(tuple(index * 30 // 8 / 10 for index in range(8)), 3.0)
        assert value.frames == times
        assert tuple(report.frames.seconds) == times.seconds
        assert [(tile.rows, tile.columns) for tile in value.tiles] == [(1, 1), (4, 4)] * 8
        assert (value.picked_by == PickedBy.CLASS).sum() == 8
        assert (report.tokens_before, report.sha256) == (8 * (1 + FRAME_TOKENS), hashlib.sha256(data).digest())
        assert response.content_key == content_key(
            codec_version=CODEC_VERSION,
            fingerprint=described.fingerprint,
            reduction=defaults.filled_from(defaults),
            dtype="float32",
            tenant="default",
            media_sha256=report.sha256,
            sampling=FrameCount(8),
        )
        for named in ({"sha256": report.sha256}, {"data": data, "sampling": tokens_pb.FrameSampling(frames=8)}):
            again = (await encoded(encoder, request(**named)))[1]
            assert (again.report.place, again.visual_tokens) == (int(Place.MEMORY), response.visual_tokens)
        with pytest.raises(MissingImages):
            raise await encoder.refusal(encoded(encoder, request(sha256=report.sha256, sampling={"frames": 7})))
        for sampling, place in (({}, Place.MEMORY), ({"frames": 7}, Place.UNSPECIFIED), (None, Place.UNSPECIFIED)):
            asked = pb.LookupRequest(sha256=[report.sha256], video_sampling=sampling)
            assert (await encoder.stub.Lookup(asked)).results[0].place == int(place)
        await until(lambda: len(watched.spans("encode")) == 4)
    (decode,) = watched.spans("decode_image")
    assert decode.attributes is not None
    assert decode.attributes[names.ATTR_VIDEO_FRAMES] == 8
    assert decode.attributes[names.ATTR_IMAGE_WIDTH] == 96
    assert {dict(span.attributes or {}).get(names.ATTR_VIDEO_FRAMES) for span in watched.spans("encode")[:3]} == {8}
    (vit,) = watched.spans("vit")
    assert dict(vit.attributes or {})[names.ATTR_TILES] == 8, "a [CLS] token is no tile of the transformer's"


@pytest.mark.parametrize("serving", [video_llava, qwen])
@pytest.mark.parametrize("kind", ["mp4 h264", "webm vp9", "gif"])
async def test_frames_that_are_sent_give_the_tokens_of_their_file(serving: Callable[[], Any], kind: str) -> None:
    data = video(kind, 6, rate=1, options={"g": "3"})
    images = [saved(picture, "PNG") for _, picture in full_decode(data)]
    every = tokens_pb.FrameSampling(frames_per_second=1)
    async with serving() as encoder:
        whole, _ = await encoded(encoder, request(data, sampling=every))
        sent, response = await encoded(encoder, request(frames=tokens_pb.VideoFrames(images=images), sampling=every))
        assert response.report.place == int(Place.ENCODED)
        assert response.report.sha256 == frames_sha256(images)
        assert sent.to_bytes() == whole.to_bytes()
        by_name = await encoded(encoder, request(sha256=frames_sha256(images), sampling=every))
        assert by_name[0].to_bytes() == whole.to_bytes()


async def test_the_rate_of_sent_frames_is_one_a_second_unless_it_is_said() -> None:
    async with video_llava() as encoder:
        sent = frames(*[(64, 48)] * 3)
        value, _ = await encoded(encoder, request(frames=sent))
        assert value.frames == SampledFrames((0.0, 1.0, 2.0), 3.0)
        value, _ = await encoded(encoder, request(frames=sent, sampling={"frames_per_second": 4}))
        assert value.frames == SampledFrames((0.0, 0.25, 0.5), 0.75)
        value, _ = await encoded(encoder, request(frames=sent, sampling={"frames_per_second": 0.005}))
        assert value.frames == SampledFrames((0.0, 200.0, 400.0), 600.0), "as long as the longest video"
        assert len(value.tiles) == 6


async def test_a_total_is_shared_by_all_tiles() -> None:
    async with video_llava() as encoder:
        data = video(frames=4)

        async def kept(total: int) -> list[int]:
            value, _ = await encoded(encoder, request(data, reduction=budget(total_tokens=total)))
            return [tile.kept_count for tile in value.tiles]

        assert await kept(10) == [1, 3, 1, 3, 1, 2, 1, 2], "[CLS] tokens are kept beside the budget"
        assert await kept(1000) == [1, FRAME_TOKENS] * 4
        error = await encoder.refusal(kept(3))
        assert str(error) == "reduction.budget.total_tokens: 3, limit at least 4, one for each tile"
    async with qwen() as encoder:
        value, _ = await encoded(encoder, request(video(frames=8, rate=2), reduction=budget(total_tokens=9)))
        assert [tile.kept_count for tile in value.tiles] == [3, 2, 2, 2]


@pytest.mark.parametrize("model", [LLAVA15, LLAVA_NEXT, QWEN])
async def test_a_total_holds_for_images_too(model: Any) -> None:
    image = tokens_pb.Image(data=saved(numbered(5, (120, 60)), "PNG"))
    async with running_encoder(model=model, **SETTINGS) as encoder:
        counts = []
        for reduction in (budget(total_tokens=7), budget(total_tokens=100_000), None):
            method = reduction or tokens_pb.ReductionSpec(method=tokens_pb.REDUCTION_METHOD_NONE)
            value, _ = await encoded(encoder, pb.EncodeRequest(image=image, reduction=method))
            counts.append(sum(scan != PickedBy.NEWLINE for scan in value.picked_by.tolist()))
        assert counts == [7, counts[2], counts[2]]


async def test_a_deployment_says_what_unset_sampling_means_and_what_is_refused() -> None:
    limits = {"max_video_bytes": 5000, "max_video_seconds": 9.5, "max_video_frames": 5, "max_video_frame_pixels": 20_000}
    async with video_llava(video_frames_per_second=0.5, **limits) as encoder:
        described = await encoder.stub.Describe(pb.DescribeEncoderRequest())
        assert described.defaults.frame_sampling.frames_per_second == 0.5
        stated = described.limits
        assert (stated.max_video_bytes, stated.max_video_seconds, stated.max_video_frames) == (5000, 9.5, 5)
        assert stated.max_video_frame_pixels == 20_000
        value, _ = await encoded(encoder, request(video(frames=9, rate=1)))
        assert len(value.tiles) == 2 * 4
        value, _ = await encoded(encoder, request(video(frames=9, rate=1), sampling={"frames_per_second": 1000}))
        assert len(value.tiles) == 2 * 5
    async with running_encoder() as encoder:
        assert not (await encoder.stub.Describe(pb.DescribeEncoderRequest())).defaults.HasField("frame_sampling")
    async with qwen() as encoder:
        described = await encoder.stub.Describe(pb.DescribeEncoderRequest())
        assert described.defaults.frame_sampling.frames_per_second == FrameRate(2.0).per_second


# What is asked of an encoder with these limits, and the whole refusal.
LIMITS = {"max_video_bytes": 20_000, "max_video_seconds": 5, "max_video_frames": 4, "max_video_frame_pixels": 10_000}
REFUSED: dict[str, tuple[Callable[[], pb.EncodeRequest], str]] = {
    "no video": (lambda: pb.EncodeRequest(video=tokens_pb.Video()), "video: not set"),
    "both": (
        lambda: pb.EncodeRequest(video=tokens_pb.Video(data=b"?"), image=tokens_pb.Image(data=b"?")),
        "video: set beside an image, limit one of the two",
    ),
    "empty": (lambda: request(b""), "video: empty"),
    "a text": (
        lambda: request(b"a text, clip.mp4"),
        "video: not a video of a known format, limit MP4 or QuickTime, WebM or Matroska, GIF",
    ),
    "truncated": (lambda: request(video()[:-90]), "video: not a readable MP4 file: truncated or damaged"),
    "many bytes": (lambda: request(bytes(20_001)), "video: 20,001 bytes, limit 20,000 bytes"),
    "long": (lambda: request(video(rate=5)), "video: 6.0 seconds, limit 5 seconds"),
    "large": (lambda: request(video(size=(128, 128))), "video: 16,384 pixels, limit 10,000 pixels"),
    "a short name": (lambda: request(sha256=b"?"), "video.sha256: 1 bytes, limit exactly 32 bytes"),
    "many frames asked": (lambda: request(video(), sampling={"frames": 5}), "video.sampling.frames: 5, limit 1 to 4"),
    "no frames asked": (lambda: request(video(), sampling={"frames": 0}), "video.sampling.frames: 0, limit at least 1"),
    "a bad rate": (
        lambda: request(video(), sampling={"frames_per_second": -1}),
        "video.sampling.frames_per_second: -1, limit over 0 to 1000",
    ),
    "no frames sent": (lambda: request(frames=frames()), "video.frames.images: 0 frames, limit 1 to 4"),
    "many frames sent": (lambda: request(frames=frames(*[(9, 9)] * 5)), "video.frames.images: 5 frames, limit 1 to 4"),
    "a bad frame": (
        lambda: request(frames=tokens_pb.VideoFrames(images=[saved(numbered(1), "PNG"), b"?"])),
        "video.frames.images[1]: not an image of a known format, limit PNG, JPEG, GIF, TIFF, WebP, BMP",
    ),
    "frames of two sizes": (
        lambda: request(frames=frames((32, 24), (32, 24), (64, 48))),
        "video.frames.images[2]: 64 x 48 pixels, limit 32 x 24, as the first",
    ),
    "a large frame": (lambda: request(frames=frames((128, 96))), "video.frames.images[0]: 12,288 pixels, limit 10,000 pixels"),
    "frames of a rate that no number holds": (
        lambda: request(frames=frames((32, 24)), sampling={"frames_per_second": 5e-324}),
        "video.sampling.frames_per_second: 1 frames at 4.94066e-324 a second, limit 5 seconds of video",
    ),
    "frames far apart": (
        lambda: request(frames=frames(*[(32, 24)] * 4), sampling={"frames_per_second": 0.79}),
        "video.sampling.frames_per_second: 4 frames at 0.79 a second, limit 5 seconds of video",
    ),
    "a number of sent frames": (
        lambda: request(frames=frames((32, 24)), sampling={"frames": 1}),
        "video.sampling.frames: set for frames that are sent, limit frames_per_second",
    ),
}


async def test_each_bad_video_is_refused_by_name_and_limit_and_the_next_one_works() -> None:
    async with video_llava(**LIMITS) as encoder:
        for case, (make, text) in REFUSED.items():
            error = await encoder.refusal(encoder.stub.Encode(make(), timeout=60))
            assert isinstance(error, InvalidArgument), case
            assert error.message == text, case
            assert error.field == text.partition(":")[0], case
        lookup = pb.LookupRequest(sha256=[bytes(32)], video_sampling={"frames": 5})
        assert str(await encoder.refusal(encoder.stub.Lookup(lookup))) == "video_sampling.frames: 5, limit 1 to 4"
        assert (await encoded(encoder, request(video())))[1].report.place == int(Place.ENCODED)


@pytest.mark.parametrize("serving", [video_llava, qwen])
async def test_more_tokens_than_a_video_may_have_never_reach_the_tower(serving: Callable[..., Any]) -> None:
    watched = Watched()
    async with serving(telemetry=watched.telemetry, video_max_tokens=2 * 17) as encoder:
        sent = frames(*[(28, 28)] * 18)
        error = await encoder.refusal(encoder.stub.Encode(request(frames=sent)))
        tokens = 9 * 4 if serving is qwen else 18 * 17
        assert str(error) == f"video: {tokens} tokens of 18 frames, limit 34 tokens"
        assert not watched.spans("vit")
        value, _ = await encoded(encoder, request(frames=frames(*[(28, 28)] * 2)))
        assert value.unreduced_count <= 34


async def test_a_family_without_videos_refuses_them() -> None:
    async with running_encoder() as encoder:
        for asked in (request(video()), request(frames=frames((32, 24))), request(sha256=bytes(32))):
            assert str(await encoder.refusal(encoder.stub.Encode(asked))) == "video: llava takes no videos"
        lookup = pb.LookupRequest(sha256=[bytes(32)], video_sampling={})
        assert str(await encoder.refusal(encoder.stub.Lookup(lookup))) == "video_sampling: llava takes no videos"
    with pytest.raises(StartupError, match="video_frames, video_frames_per_second: llava takes no videos"):
        async with running_encoder(video_frames=4):
            pass


async def test_a_gif_is_one_thing_as_an_image_and_another_as_a_video() -> None:
    data = video("gif", 3)
    async with video_llava() as encoder:
        as_image = (await encoder.stub.Encode(pb.EncodeRequest(image=tokens_pb.Image(data=data)))).visual_tokens
        as_video, _ = await encoded(encoder, request(data))
        assert not as_image.HasField("frames")
        assert len(as_image.tiles) == 1
        assert len(as_video.tiles) == 6


def slow(number: int = 0) -> bytes:
    """A small file that takes a minute to decode; another one for each number."""
    frame = b"\x21\xf9\x04\0\x02\0\0\0" + b"\x2c" + struct.pack("<4H", 0, 0, 1, 1) + b"\0" + b"\x02\x02\x44\x01\0"
    return saved(Image.new("P", (2900, 2900)), "GIF")[:-1] + frame * 4500 + b";" + bytes(number)


def waiting(watched: Watched) -> int:
    return sum(point.value for point in watched.metrics().get(names.METRIC_ENCODER_WAITING.name, []))


async def test_decoding_ends_with_the_call_that_it_was_for() -> None:
    """Another caller needs the only thread."""
    watched = Watched()
    async with video_llava(telemetry=watched.telemetry, video_workers=1) as encoder:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await encoder.stub.Encode(request(slow()), timeout=0.5)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await encoded(encoder, request(video())))[1].report.place == int(Place.ENCODED)
    stopped, done = watched.spans("decode_image")
    assert not stopped.status.is_ok
    assert "Cancelled" in str(stopped.status.description)
    assert done.end_time is not None


async def test_images_wait_for_no_video() -> None:
    watched = Watched()
    image = pb.EncodeRequest(image=tokens_pb.Image(data=saved(numbered(1), "PNG")))
    async with video_llava(telemetry=watched.telemetry, image_workers=1, video_workers=1, max_queue=3) as encoder:
        videos = [encoder.stub.Encode(request(slow(number))) for number in range(3)]
        await until(lambda: waiting(watched) == 3)
        error = await encoder.refusal(encoder.stub.Encode(request(video()), timeout=60))
        assert isinstance(error, ResourceExhausted)
        assert str(error) == "3 videos wait to be encoded already"
        assert error.retry_delay_ms >= 50
        assert (await encoder.stub.Encode(image, timeout=60)).report.place == int(Place.ENCODED)
        assert waiting(watched) == 3, "all this time"
        for call in videos:
            call.cancel()
        assert (await encoded(encoder, request(video())))[1].report.place == int(Place.ENCODED)


async def test_what_waits_is_bounded_in_bytes() -> None:
    """A video waits for company with its pixels: 4 frames of the five tiles that make a full batch."""
    watched = Watched()
    settings = {"max_queue_bytes": 100_000, "max_batch_tiles": 5, "batch_wait_ms": 3_600_000}
    async with video_llava(telemetry=watched.telemetry, **settings) as encoder:
        first = encoder.stub.Encode(request(video(frames=4)), timeout=60)
        await until(lambda: encoder.service._pipeline._videos.room.held_bytes > 100_000)
        error = await encoder.refusal(encoder.stub.Encode(request(video(frames=5)), timeout=60))
        assert isinstance(error, ResourceExhausted)
        assert str(error).startswith("videos of ")
        assert error.retry_delay_ms >= 50
        image = pb.EncodeRequest(image=tokens_pb.Image(data=saved(numbered(1), "PNG")))
        await encoder.stub.Encode(image, timeout=60)
        assert (await first).report.place == int(Place.ENCODED)
        assert (await encoded(encoder, request(video(frames=5))))[1].report.place == int(Place.ENCODED)
    assert waiting(watched) == 0
