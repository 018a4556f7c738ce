"""Videos are found as images are: by name and sampling, and each is encoded once."""

from __future__ import annotations

import hashlib

import pytest

from decoder_service.media import ImageInput, VideoInput
from tests.support.resolving import ANYTHING, resolver, small_encoder
from tests.support.small_encoder import image_bytes
from vscan.cache.place import Place
from vscan.content_key import frames_sha256
from vscan.errors import InvalidArgument, MissingImages
from vscan.specs import FrameCount, FrameRate

FIELD = "messages[0].parts[0].video"
FILE = image_bytes("a video")
NAME = hashlib.sha256(FILE).digest()
FRAMES = (image_bytes("frame 0"), image_bytes("frame 1"))


async def test_what_differs_in_kind_or_sampling_is_encoded_each_for_itself() -> None:
    async with small_encoder(None, frame_sampling=FrameCount(8)) as (encoder, address), resolver(None, address) as one:
        found = await one.resolve(
            [
                VideoInput(FIELD, data=FILE),
                ImageInput(FIELD, data=FILE),
                VideoInput(FIELD, data=FILE, sampling=FrameCount(4)),
                VideoInput(FIELD, data=FILE, sampling=FrameRate(4)),
                VideoInput(FIELD, data=FILE, sampling=FrameCount(8)),  # the default, spelled out
                VideoInput(FIELD, sha256=NAME),
            ],
            ANYTHING,
            "default",
        )
        again = await one.resolve([VideoInput(FIELD, sha256=NAME, sampling=FrameRate(4))], ANYTHING, "default")
    assert [one.place for one in found] == [Place.ENCODED] * 4 + [Place.SHARED] * 2
    assert {one.sha256 for one in found} == {NAME}
    assert [one.place for one in again] == [Place.MEMORY]
    assert encoder.runs == 4


@pytest.mark.parametrize("default", [FrameCount(8), FrameRate(2)])
async def test_frames_that_were_sent_are_found_by_their_name_alone(default: FrameCount | FrameRate) -> None:
    """In the decoder's memory, and in that of the encoder by another decoder."""
    async with small_encoder(None, frame_sampling=default) as (encoder, address):
        async with resolver(None, address) as one:
            sent, named = [
                (await one.resolve([video], ANYTHING, "default"))[0]
                for video in (VideoInput(FIELD, frames=FRAMES), VideoInput(FIELD, sha256=frames_sha256(FRAMES)))
            ]
        async with resolver(None, address) as other:
            (elsewhere,) = await other.resolve([VideoInput(FIELD, sha256=frames_sha256(FRAMES))], ANYTHING, "default")
    assert [one.place for one in (sent, named, elsewhere)] == [Place.ENCODED, Place.MEMORY, Place.ENCODER_MEMORY]
    assert sent.sha256 == frames_sha256(FRAMES)
    assert encoder.runs == 1


async def test_unknown_names_of_images_and_videos_are_told_together_each_once() -> None:
    unknown = [hashlib.sha256(name).digest() for name in (b"a", b"b")]
    async with small_encoder(None, frame_sampling=FrameCount(8)) as (_, address), resolver(None, address) as one:
        with pytest.raises(MissingImages) as missing:
            await one.resolve(
                [
                    VideoInput(FIELD, sha256=unknown[0]),
                    ImageInput("messages[0].parts[1].image", sha256=unknown[1]),
                    VideoInput("messages[0].parts[2].video", sha256=unknown[0], sampling=FrameCount(2)),
                ],
                ANYTHING,
                "default",
            )
    assert missing.value.sha256 == tuple(unknown)
    assert missing.value.field == FIELD


async def test_a_number_of_sent_frames_is_refused_and_so_is_every_video_where_none_is_taken() -> None:
    async with small_encoder(None, frame_sampling=FrameCount(8)) as (encoder, address), resolver(None, address) as one:
        with pytest.raises(InvalidArgument) as refusal:
            await one.resolve([VideoInput(FIELD, frames=FRAMES, sampling=FrameCount(2))], ANYTHING, "default")
    assert (refusal.value.field, encoder.arrived) == (f"{FIELD}.sampling.frames", 0)
    async with small_encoder(None) as (encoder, address), resolver(None, address) as one:
        with pytest.raises(InvalidArgument) as refusal:
            await one.resolve([VideoInput(FIELD, data=FILE)], ANYTHING, "default")
    assert (str(refusal.value), encoder.arrived) == (f"{FIELD}: small takes no videos", 0)
