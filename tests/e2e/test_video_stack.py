"""Videos through both services: files, frames, names, beside images; what is told of them, and what is refused."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import openai
import pytest
from PIL import Image

from decoder_service.chat import Role
from decoder_service.request import Pruning
from tests.support.asking import ask, decoder_stub, image, raw, refusal
from tests.support.both_halves import BothHalves, Clip
from tests.support.decoder import PARITY_CHECKPOINT
from tests.support.gateway import in_process_gateway, openai_client, video_part
from tests.support.qwen import shared_qwen
from tests.support.stack import Stack, in_process_stack
from tests.support.video_llava import frames_of_noise, shared_video_llava
from tests.support.videos import full_decode, video
from vscan.content_key import frames_sha256
from vscan.errors import InvalidArgument, MissingImages
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import decoder_pb2_grpc, visual_tokens_pb2
from vscan.v1.visual_tokens_pb2 import FrameSampling, Video, VideoFrames

NEW_TOKENS = 8
TEXT = "w9 w10"
FILE = video("mp4 h264", 8, rate=2)  # four seconds
FRAMES = [frame for _, frame in full_decode(FILE)][::2]  # those at each second
FAMILIES = {"video_llava": lambda: shared_video_llava()[0], "qwen2_5_vl": lambda: shared_qwen()[0]}


@cache
def halves(family: str) -> BothHalves:
    return BothHalves(FAMILIES[family]())


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def stack(family: str) -> AsyncIterator[Stack]:
    async with in_process_stack(checkpoint=FAMILIES[family]()) as stack:
        yield stack


@pytest.fixture
async def stub(stack: Stack) -> AsyncIterator[decoder_pb2_grpc.DecoderStub]:
    async with decoder_stub(stack.decoder_address) as stub:
        yield stub


def png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def chat(*contents: str | bytes | Video, unreduced: bool = True) -> pb.GenerateRequest:
    """A user's message of texts, image files and videos."""

    def part(content: str | bytes | Video) -> pb.Part:
        if isinstance(content, str):
            return pb.Part(text=content)
        return pb.Part(video=content) if isinstance(content, Video) else pb.Part(image=image(content))

    message = pb.Message(role=pb.ROLE_USER, parts=[part(content) for content in contents])
    request = pb.GenerateRequest(chat=pb.Chat(messages=[message]), sampling=pb.SamplingParams(max_new_tokens=NEW_TOKENS))
    if unreduced:
        request.reduction.method = visual_tokens_pb2.REDUCTION_METHOD_NONE
        request.prune.rater = pb.RATER_NONE
    return request


def sampled(**amount: float) -> FrameSampling:
    return FrameSampling(**amount)  # type: ignore[arg-type]


async def test_a_file_its_frames_and_its_name_are_one_video(
    family: str, stack: Stack, stub: decoder_pb2_grpc.DecoderStub
) -> None:
    (wanted,) = halves(family).answers([(Role.USER, [Clip(FRAMES, 1.0), TEXT])], Pruning(), new_tokens=NEW_TOKENS)
    files = [png(frame) for frame in FRAMES]
    of_file = await ask(stub, chat(Video(data=FILE, sampling=sampled(frames=4)), TEXT))
    by_name = await ask(stub, chat(Video(sha256=of_file.started.images[0].sha256, sampling=sampled(frames=4)), TEXT))
    per_second = sampled(frames_per_second=1)
    of_frames = await ask(stub, chat(Video(frames=VideoFrames(images=files), sampling=per_second), TEXT))
    assert [answer.ids for answer in (of_file, by_name, of_frames)] == [wanted] * 3
    assert [answer.places for answer in (of_file, by_name, of_frames)] == [["ENCODED"], ["MEMORY"], ["ENCODED"]]
    assert of_frames.started.images[0].sha256 == frames_sha256(files)
    for answer in (of_file, by_name, of_frames):
        (report,) = answer.started.images
        told = (list(report.frames.seconds), report.frames.duration_seconds, report.frames.interval_seconds)
        assert told == ([0, 1, 2, 3], 4, 1)
    by_http = await asked_over_http(stack, frames=4)
    assert by_http.choices[0].message.content == of_file.text
    (report,) = by_http.vscan["images"]
    assert (report["place"], report["frames"]["seconds"]) == ("memory", [0, 1, 2, 3])
    assert by_http.usage.prompt_tokens == of_file.finished.usage.prompt_tokens
    with pytest.raises(openai.BadRequestError) as caught:
        await asked_over_http(stack, frames=10_000)
    assert caught.value.param == "vscan.frames"


async def asked_over_http(stack: Stack, *, frames: int) -> Any:
    """The same question, of OpenAI's client."""
    own = {"frames": frames, "reduction": "none", "rater": "none"}
    messages: list[Any] = [{"role": "user", "content": [video_part(FILE), {"type": "text", "text": TEXT}]}]
    async with in_process_gateway(stack.decoder_address) as gateway, openai_client(gateway.address, "unused") as client:
        (model,) = (await client.models.list()).data
        asked = client.chat.completions.create(
            model=model.id, messages=messages, max_tokens=NEW_TOKENS, extra_body={"vscan": own}
        )
        return await asked


async def test_a_raw_prompt_reports_in_its_own_order(family: str, stub: decoder_pb2_grpc.DecoderStub) -> None:
    picture, clip = frames_of_noise(1)[0], Clip(frames_of_noise(3, seed=1), 2.0)
    named = {"video_llava": ("<video>", "<image>"), "qwen2_5_vl": ("<|video_pad|>", "<|image_pad|>")}[family]
    request = raw(f"{named[0]} w9 {named[1]} w10", png(picture), max_new_tokens=NEW_TOKENS)
    sent = VideoFrames(images=[png(frame) for frame in clip.frames])
    request.raw.videos.append(Video(frames=sent, sampling=sampled(frames_per_second=2)))
    served = await ask(stub, request)
    assert [list(report.frames.seconds) for report in served.started.images] == [[0, 0.5, 1], []]
    assert served.started.images[0].sha256 == frames_sha256(sent.images)


async def test_both_stages_reduce_images_and_videos_within_one_budget(family: str, stub: decoder_pb2_grpc.DecoderStub) -> None:
    request = chat(png(frames_of_noise(1, 112, 112)[0]), Video(data=FILE), TEXT, unreduced=False)
    request.reduction.budget.ratio = 0.5
    request.prune.budgets.add().tokens = 7
    request.report_kept = True
    served = await ask(stub, request)
    (pruned,) = served.finished.pruning
    still, moving = served.started.images
    assert pruned.tokens_before == still.tokens_after + moving.tokens_after < still.tokens_before + moving.tokens_before
    assert (pruned.tokens_after, len(pruned.survivors)) == (7, 2)
    classes = list(moving.kept.picked_by).count(visual_tokens_pb2.PICKED_BY_CLASS)
    assert classes == (len(moving.frames.seconds) if family == "video_llava" else 0)


async def test_what_is_wrong_with_a_video_is_told_at_its_place(stub: decoder_pb2_grpc.DecoderStub) -> None:
    files = [png(frame) for frame in FRAMES[:2]]
    for bad, field in (
        (Video(data=b"no video at all"), "video"),
        (Video(frames=VideoFrames(images=[files[0], b"no image"])), "video.frames.images[1]"),
        (Video(data=FILE, sampling=sampled(frames=10_000)), "video.sampling.frames"),
        (Video(frames=VideoFrames(images=files), sampling=sampled(frames=2)), "video.sampling.frames"),
    ):
        error = await refusal(stub, chat(TEXT, bad))
        assert isinstance(error, InvalidArgument)
        assert error.field == f"messages[0].parts[1].{field}"
    error = await refusal(stub, chat(Video(sha256=bytes(32)), TEXT))
    assert isinstance(error, MissingImages)
    assert error.sha256 == (bytes(32),)
    described = await stub.Describe(pb.DescribeDecoderRequest())
    assert described.limits.max_videos == 4


async def test_a_gif_is_one_thing_as_an_image_and_another_as_a_video(stub: decoder_pb2_grpc.DecoderStub) -> None:
    gif = video("gif", 4, rate=2)
    served = await ask(stub, chat(gif, Video(data=gif), TEXT))
    still, moving = served.started.images
    assert still.sha256 == moving.sha256
    assert (still.HasField("frames"), len(moving.frames.seconds)) == (False, 4)
    assert served.places == ["ENCODED", "ENCODED"]


async def test_a_family_without_videos_says_so() -> None:
    async with in_process_stack(checkpoint=PARITY_CHECKPOINT) as stack, decoder_stub(stack.decoder_address) as stub:
        error = await refusal(stub, chat(TEXT, Video(data=FILE)))
        assert isinstance(error, InvalidArgument)
        assert str(error) == "messages[0].parts[1].video: llava takes no videos"
        described = await stub.Describe(pb.DescribeDecoderRequest())
        assert described.limits.max_videos == 0
