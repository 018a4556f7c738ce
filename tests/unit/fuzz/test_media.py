"""Image and video files: decoded within the limits, or refused as the field's fault."""

from __future__ import annotations

import warnings
from threading import Event

import pytest
from hypothesis import given
from PIL import Image

from encoder_service.images import FORMATS, ImageLimits, decode_image
from encoder_service.mp4_boxes import without_sound
from encoder_service.videos import VideoLimits, sample_video
from tests.support.bad_images import saved
from tests.support.videos import video
from tests.unit.fuzz import fuzzed, well_told
from tests.unit.fuzz.mutations import mutated
from vscan.errors import InvalidArgument

LIMITS = ImageLimits(max_bytes=2**18, max_pixels=100_000, min_side=8, max_aspect_ratio=20)
VIDEO_LIMITS = VideoLimits(max_bytes=2**20, max_seconds=20, max_frames=8, max_decoded_pixels=10**7, frame=LIMITS)
NOISE = Image.effect_noise((24, 20), 90)
_COLOUR = NOISE.convert("RGB")
_MOVING = ("GIF", "PNG", "WEBP")
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
IMAGES = [
    *(saved(NOISE.convert("P" if form == "GIF" else "RGB"), form) for form in FORMATS),
    *(saved(NOISE.convert(mode), "PNG") for mode in ("1", "LA", "RGBA", "P")),
    saved(NOISE.convert("RGB"), "JPEG", progressive=True, exif=_EXIF),
    saved(NOISE.convert("CMYK"), "TIFF", compression="tiff_lzw"),
    saved(NOISE.convert("RGB"), "TIFF", compression="jpeg", exif=_EXIF),
    saved(NOISE.convert("RGBA"), "WEBP", lossless=True, exif=_EXIF),
    *(saved(NOISE.convert("RGB"), form, save_all=True, append_images=[_COLOUR]) for form in ("GIF", "PNG", "WEBP")),
]
VIDEOS = [video(kind, 6, size=(32, 32)) for kind in ("mp4 h264", "mp4 mpeg4", "mov mjpeg", "webm vp8", "gif")]


@given(mutated(IMAGES))
@fuzzed
def test_an_image_is_decoded_or_refused(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = decode_image(data, LIMITS)
        except InvalidArgument as error:
            well_told(error, "image")
        else:
            assert picture.mode == "RGB"
            assert picture.width * picture.height <= LIMITS.max_pixels


@given(mutated(VIDEOS))
@fuzzed
def test_a_video_is_decoded_or_refused(data: bytes) -> None:
    asked: list[int] = []

    def how_many(_: object, available: int) -> int:
        asked.append(available)
        return 4

    try:
        pictures, frames = sample_video(data, VIDEO_LIMITS, how_many, Event())
        shown = list(pictures)
    except InvalidArgument as error:
        well_told(error, "video")
    else:
        assert 1 <= len(shown) == len(frames.seconds) <= 4
        assert frames.duration_seconds <= VIDEO_LIMITS.max_seconds
        assert max(asked) <= 240 * VIDEO_LIMITS.max_seconds


@given(mutated([file for file in VIDEOS if file[4:8] == b"ftyp"]))
@fuzzed
def test_boxes_are_read_at_the_same_length_or_refused(data: bytes) -> None:
    try:
        assert len(without_sound(data, 100)) == len(data)
    except InvalidArgument as error:
        well_told(error, "video")


def test_files_that_are_not_changed_pass() -> None:
    assert all(decode_image(data, LIMITS).size in {(24, 20), (20, 24)} for data in IMAGES)
    for data in VIDEOS:
        pictures, _ = sample_video(data, VIDEO_LIMITS, lambda duration, available: 4, Event())
        assert len(list(pictures)) == 4
    with pytest.raises(InvalidArgument):
        decode_image(IMAGES[0][:40], LIMITS)
