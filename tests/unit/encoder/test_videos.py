"""Videos: the frames wanted come out, as a plain decoder shows them; what is not accepted is refused by name and limit."""

import io
import resource
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from threading import Event
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from encoder_service.images import ImageLimits, decode_image
from encoder_service.videos import VideoLimits, sample_video
from tests.support.bad_images import saved
from tests.support.videos import (
    KINDS,
    ONE,
    SIZE,
    TURNED,
    changed,
    full_decode,
    number_of,
    numbered,
    sound_alone,
    turned_video,
    video,
)
from vscan.errors import Cancelled, InvalidArgument
from vscan.visual_tokens import SampledFrames

LIMITS = VideoLimits(
    max_bytes=2**20,
    max_seconds=60,
    max_frames=64,
    max_decoded_pixels=10**9,
    frame=ImageLimits(max_bytes=2**20, max_pixels=9_000_000, min_side=8, max_aspect_ratio=20),
)


def sampled(
    data: bytes, count: int, limits: VideoLimits = LIMITS, stop: Event | None = None
) -> tuple[list[Image.Image], SampledFrames]:
    pictures, times = sample_video(data, limits, lambda duration, available: count, stop or Event())
    return list(pictures), times


def numbers(data: bytes, count: int, limits: VideoLimits = LIMITS) -> list[int]:
    return [number_of(picture) for picture in sampled(data, count, limits)[0]]


def refusal(data: bytes, limits: VideoLimits = LIMITS, count: int = 8) -> str:
    with pytest.raises(InvalidArgument) as caught:
        sampled(data, count, limits)
    assert caught.value.field == "video"
    return f"{caught.value.problem}, limit {caught.value.limit}" if caught.value.limit else caught.value.problem


def unreadable(kind: str) -> str:
    return f"not a readable {kind} file: truncated or damaged"


def evenly(times: list[int], length: int, count: int) -> list[int]:
    """The frame that is shown at each moment, looked for one by one."""
    moments = [Fraction(index * length, count) for index in range(count)]
    return [max(number for number, time in enumerate(times) if time <= moment) for moment in moments]


@pytest.mark.parametrize("kind", KINDS)
def test_evenly_spread_frames_are_those_of_a_full_decode(kind: str) -> None:
    data = video(kind, 30)
    whole = [picture for _, picture in full_decode(data)]
    assert [number_of(picture) for picture in whole] == list(range(30))
    for count in (1, 4, 7, 29, 30):
        pictures, times = sampled(data, count)
        wanted = [index * 30 // count for index in range(count)]
        assert all(picture.tobytes() == whole[number].tobytes() for picture, number in zip(pictures, wanted, strict=True))
        assert times == SampledFrames(tuple(number / 10 for number in wanted), 3.0)


def test_a_video_with_fewer_frames_gives_each_of_them_once() -> None:
    assert numbers(video(frames=3), 8) == [0, 1, 2]
    assert numbers(video(frames=1), 8) == [0]


def test_the_count_is_asked_for_with_the_length_and_the_number_of_frames() -> None:
    asked: list[tuple[Fraction, int]] = []

    def how_many(duration: Fraction, available: int) -> int:
        asked.append((duration, available))
        return 2

    sample_video(video(frames=25, rate=Fraction(30_000, 1001)), LIMITS, how_many, Event())
    sample_video(video("webm vp9", 60, rate=60), LIMITS, how_many, Event())
    assert asked == [(Fraction(25 * 1001, 30_000), 25), (Fraction(1), 60)], "exact, however the container rounds"


@pytest.mark.parametrize("kind", ["mp4 h264", "webm vp8", "gif"])
def test_of_a_variable_rate_the_frame_is_taken_that_is_shown(kind: str) -> None:
    times = [0, 10, 20, 150, 160, 400, 410, 420, 430, 900]
    data = video(kind, len(times), times=times, time_base=Fraction(1, 100), options={"bf": "2"} if "h264" in kind else None)
    times_of = sampled(data, 64)[1]
    assert times_of.seconds == tuple(time / 100 for time in times)
    length = round(100 * times_of.duration_seconds)
    for count in (2, 3, 5, 9):
        assert numbers(data, count) == evenly(times, length, count)


@pytest.mark.parametrize("kind", ["mkv h264", "webm vp9"])
@pytest.mark.parametrize("rate", [Fraction(30), Fraction(60), Fraction(24_000, 1001)])
def test_times_rounded_to_milliseconds_are_those_of_the_rate(kind: str, rate: Fraction) -> None:
    data = video(kind, 70, rate=rate)
    for count in (10, 35, 64):
        assert numbers(data, count) == [index * 70 // count for index in range(count)]
    assert sampled(data, 3)[1].duration_seconds == float(70 / rate)


@pytest.mark.parametrize("options", [{"bf": "3", "x264-params": "open-gop=1:b-pyramid=normal"}, {"bf": "0", "g": "5"}])
def test_frames_around_key_frames_are_found(options: dict[str, str]) -> None:
    data = video(frames=60, options=options)
    for count in (11, 13, 17, 59):
        assert numbers(data, count) == [index * 60 // count for index in range(count)]


def test_only_what_is_needed_is_decoded() -> None:
    data = video(frames=300)  # a key frame every 12
    few = replace(LIMITS, max_decoded_pixels=60 * SIZE[0] * SIZE[1])
    assert numbers(data, 3, few) == [0, 100, 200]
    assert refusal(data, few, count=64) == "more pixels to decode than are allowed, limit 368,640 pixels"


def test_hidden_frames_are_no_frames() -> None:
    data = video("webm vp8", 20)
    with av.open(io.BytesIO(data), "r") as container:
        coded = [bytes(packet) for packet in container.demux(video=0)]
    for frame in (coded[7], coded[8]):  # their bit that says whether they are shown
        data = data.replace(frame, bytes([frame[0] & ~0x10]) + frame[1:])
    shown = [number for number in range(20) if number not in (7, 8)]
    assert [number_of(picture) for _, picture in full_decode(data)] == shown
    assert numbers(data, 64) == shown
    assert sampled(data, 18)[1].seconds == tuple(number / 10 for number in shown)


def test_what_an_edit_cuts_off_is_not_shown() -> None:
    data = video(frames=30)
    (start,) = struct.unpack(">i", data[data.index(b"elst") + 16 :][:4])
    shorter = changed(data, b"elst", 12, struct.pack(">ii", 2000, start + 10 * 1024))  # 2 seconds from frame 10 on
    whole = [number_of(picture) for _, picture in full_decode(shorter)]
    assert whole[0] == 10
    assert numbers(shorter, 64) == whole
    assert numbers(shorter, 5) == whole[:: len(whole) // 5][:5]


@pytest.mark.parametrize(("matrix", "turn"), TURNED)
def test_a_picture_is_turned_as_its_container_says(matrix: tuple[int, int, int, int], turn: Image.Transpose | None) -> None:
    data = turned_video(0b1011_0000_1110, matrix, turn)
    pictures, _ = sampled(data, 2)
    assert [(picture.size, number_of(picture)) for picture in pictures] == [(SIZE, 0b1011_0000_1110)] * 2


def test_odd_sizes_are_kept_and_other_sizes_made_equal() -> None:
    assert {picture.size for picture in sampled(video("webm vp9", 5, size=(97, 61)), 3)[0]} == {(97, 61)}
    pictures, _ = sampled(two_sizes(), 8)
    assert [number_of(picture) for picture in pictures] == [0, 1, 2, 3] * 2
    assert {picture.size for picture in pictures} == {SIZE}


def two_sizes() -> bytes:
    """A WebM file whose second half has another size."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream: Any = container.add_stream("libvpx", rate=10)
        stream.width, stream.height = SIZE
        for half, size in enumerate([SIZE, (192, 128)]):
            with av.open(io.BytesIO(video("webm vp8", 4, size=size)), "r") as source:
                for packet in source.demux(video=0):
                    if packet.pts is not None:
                        packet.pts = packet.dts = packet.pts + 400 * half
                        packet.stream = stream
                        container.mux(packet)
    return file.getvalue()


def test_transparency_lies_on_white_and_delays_are_kept() -> None:
    pictures = []
    for left in (0, 8, 16):
        picture = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
        picture.paste((255, 0, 0, 255), (left, 0, left + 8, 30))
        pictures.append(picture)
    data = saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:], duration=[100, 500, 200], disposal=2)
    shown, times = sampled(data, 8)
    assert times == SampledFrames((0.0, 0.1, 0.6), 0.8)
    assert [[picture.getpixel((x, 15)) == (255, 0, 0) for x in (4, 12, 20)] for picture in shown] == np.eye(
        3, dtype=bool
    ).tolist()
    assert {picture.getpixel((30, 15)) for picture in shown} == {(255, 255, 255)}


@pytest.mark.parametrize("kind", ["mp4 h264", "mov mjpeg", "mkv h264", "webm vp8"])
def test_sound_is_passed_over(kind: str) -> None:
    muxing = {"movflags": "frag_keyframe+empty_moov"} if kind == "mp4 h264" else {}
    tight = replace(LIMITS, max_seconds=2)
    assert numbers(video(kind, 10, sound=True, muxing=muxing), 5, tight) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("tail", [b"\0\0", b"\r\n", b"a comment;", b"!", b",\xff"])
def test_what_lies_behind_the_end_of_a_gif_is_passed_over(tail: bytes) -> None:
    data = video("gif", 5)
    assert numbers(data + tail, 8) == numbers(data[:-1] + b"\0;" + tail, 8) == [0, 1, 2, 3, 4]
    assert decode_image(data + tail, LIMITS.frame).size == SIZE, "nor does an image look there"


@pytest.mark.parametrize("first", [b"free", b"skip", b"wide"])
def test_a_quicktime_file_need_not_say_what_it_is(first: bytes) -> None:
    for data in (video("mov mjpeg", 5), video(frames=5), video(frames=5, muxing={"movflags": "frag_keyframe+empty_moov"})):
        unnamed = data.replace(b"ftyp", first, 1)
        assert unnamed[4:8] == first
        assert numbers(unnamed, 8) == [0, 1, 2, 3, 4]
        assert refusal(unnamed[: len(data) * 3 // 5]) == unreadable("MP4")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(kind: str, kept: float) -> None:
    data = video(kind, 20)
    name = {"mp4": "MP4", "mov": "MP4", "matroska": "WebM", "webm": "WebM", "gif": "GIF"}[KINDS[kind][0]]
    assert refusal(data[: int(kept * len(data))]) == unreadable(name)


@pytest.mark.parametrize(
    "data",
    [b"a text that is called clip.mp4", b"#EXTM3U\nfile:///etc/hostname", saved(numbered(1), "PNG"), b"RIFF\0\0\0\0AVI "],
)
def test_other_formats_are_refused(data: bytes) -> None:
    assert refusal(data) == "not a video of a known format, limit MP4 or QuickTime, WebM or Matroska, GIF"


def test_other_codecs_and_files_without_pictures_are_refused() -> None:
    assert refusal(sound_alone()) == "no pictures"
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        container.mux([*stream.encode(av.VideoFrame.from_ndarray(np.asarray(numbered(1)))), *stream.encode(None)])
    assert refusal(file.getvalue()).startswith("codec ffv1, limit h264, hevc, ")
    assert refusal(b"GIF89a" + struct.pack("<HH", 40, 30) + b"\0\0\0;") == unreadable("GIF")


def test_what_is_over_a_limit_is_refused_by_name_and_limit() -> None:
    data = video(frames=30)
    frame = LIMITS.frame
    assert refusal(b"") == "empty"
    assert refusal(data, replace(LIMITS, max_bytes=1000)) == f"{len(data):,} bytes, limit 1,000 bytes"
    assert refusal(data, replace(LIMITS, max_seconds=2.5)) == "3.0 seconds, limit 2.5 seconds"
    assert refusal(data, replace(LIMITS, frame=replace(frame, max_pixels=6143))) == "6,144 pixels, limit 6,143 pixels"
    assert (
        refusal(data, replace(LIMITS, frame=replace(frame, min_side=65))) == "96 x 64 pixels, limit at least 65 pixels a side"
    )
    assert refusal(video(frames=30, rate=1000), replace(LIMITS, max_seconds=0.1)) == "30 frames, 1 edits, limit 24 frames"
    assert refusal(video("webm vp8", 30, rate=500), replace(LIMITS, max_seconds=0.1)) == "over 24 frames, limit 24 frames"


def test_a_header_that_lies_about_the_size_is_not_believed() -> None:
    entry = b"avc1" + bytes(6)
    larger = changed(video(), entry, 28, struct.pack(">HH", 60_000, 60_000))
    assert refusal(larger) == "3,600 MP, limit 9 MP"
    smaller = changed(video(size=(640, 480)), entry, 28, struct.pack(">HH", 16, 16))
    tight = replace(LIMITS, frame=replace(LIMITS.frame, max_pixels=200_000))
    assert refusal(smaller, tight) == "307,200 pixels, limit 200,000 pixels"
    much_smaller = replace(LIMITS, frame=replace(LIMITS.frame, max_pixels=1000))
    assert refusal(smaller, much_smaller) == unreadable("MP4"), "the decoder itself stops before it takes memory"
    assert refusal(b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\0\0\0;") == "4,294.8 MP, limit 9 MP"


def claiming(samples: int) -> bytes:
    """An MP4 file of two kilobytes whose tables claim so many samples of a byte."""
    data = changed(video("mp4 mpeg4"), b"stsz", 8, struct.pack(">II", 1, samples))
    data = changed(data, b"stsc", 16, struct.pack(">I", samples))
    return changed(data, b"stts", 12, struct.pack(">II", samples, 1))


def with_box(data: bytes, path: list[bytes], body: bytes) -> bytes:
    """An MP4 file whose tables lie at its end, with another body in the first box of this path."""
    start = data.index(path[-1]) + 4
    (size,) = struct.unpack(">I", data[start - 8 : start - 4])
    data = data[:start] + body + data[start + size - 8 :]
    for box in path:
        place = data.index(box) - 4
        (old,) = struct.unpack(">I", data[place : place + 4])
        data = data[:place] + struct.pack(">I", old + len(body) - size + 8) + data[place + 4 :]
    return data


def edited(times: int) -> bytes:
    """An MP4 file that shows its 1000 frames so many times."""
    data = video("mp4 mpeg4", 1000, size=(16, 16), rate=100)
    edits = struct.pack(">II", 0, times) + struct.pack(">iii", 10_000, 0, ONE) * times
    return with_box(data, [b"moov", b"trak", b"edts", b"elst"], edits)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: claiming(40_000_000), "40,000,000 frames, 1 edits, limit 14,400 frames"),
        (lambda: claiming(2**32 - 1), "4,294,967,295 frames, 1 edits, limit 14,400 frames"),
        (lambda: claiming(40_000_000).replace(b"vide", b"soun"), "no pictures"),
        (lambda: edited(10_000), "1,000 frames, 10,000 edits, limit 14,400 frames"),
        (lambda: changed(video(), b"udta", 0, b"cmov"), "a compressed MP4 header, limit headers as they are"),
    ],
)
def test_tables_that_claim_too_much_are_refused_before_they_are_believed(make: Callable[[], bytes], text: str) -> None:
    data = make()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert refusal(data) == text
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000, "kilobytes; the tables would take gigabytes"


def test_one_stretch_of_bytes_is_not_every_frame() -> None:
    data = video("mov mjpeg", [Image.effect_noise(SIZE, 90).convert("RGB")] * 10)
    tables = [b"moov", b"trak", b"mdia", b"minf", b"stbl"]
    data = with_box(data, [*tables, b"stsz"], struct.pack(">III", 0, len(data) // 2, 10))
    data = with_box(data, [*tables, b"stsc"], struct.pack(">IIIII", 0, 1, 1, 1, 1))
    data = with_box(data, [*tables, b"stco"], struct.pack(">II10I", 0, 10, *[data.index(b"mdat") + 4] * 10))
    assert refusal(data) == unreadable("MP4")


def test_a_gif_of_many_frames_on_a_large_canvas_costs_no_more_than_the_limit() -> None:
    pictures = [Image.new("P", (2000, 2000)) for _ in range(3)]
    frame = b"\x21\xf9\x04\0\x02\0\0\0" + b"\x2c" + struct.pack("<4H", 0, 0, 1, 1) + b"\0" + b"\x02\x02\x44\x01\0"
    start = saved(pictures[0], "GIF")
    bomb = start[:-1] + frame * 5000 + b";"
    assert len(bomb) < 2**18
    allowed = replace(LIMITS, max_decoded_pixels=400_000_000, max_seconds=600)
    assert refusal(bomb, allowed) == "more pixels to decode than are allowed, limit 400 MP"


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_decoded_or_refused_never_more(kind: str) -> None:
    data = video(kind, 8, size=(48, 32))
    outcomes = set()
    for position in range(0, len(data), max(1, len(data) // 80)):
        damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        try:
            outcomes.add({picture.mode for picture in sampled(damaged, 4)[0]} == {"RGB"})
        except InvalidArgument as error:
            outcomes.add(error.field == "video")
    assert outcomes == {True}


def test_decoding_ends_when_nobody_waits_for_it() -> None:
    stop = Event()
    pictures, _ = sample_video(video(frames=30), LIMITS, lambda duration, available: 30, stop)
    next(pictures)
    stop.set()
    with pytest.raises(Cancelled):
        list(pictures)
    with pytest.raises(Cancelled):
        sampled(video(frames=3), 2, stop=stop)
