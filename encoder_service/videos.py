"""Safe decoding of video files: bytes in, a few upright RGB pictures out. Nothing is fetched, and no sound is touched.

packets    I P B B P B B I P B B …        demuxed once, kept as bytes: their times are the video's length and its frames
wanted         ●             ●            frames spread evenly over the time
decoded    ▔▔▔▔▔             ▔▔▔▔▔        from the key frame before each, where that is further on than the decoder
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from threading import Event
from typing import NoReturn

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from encoder_service.gif_blocks import up_to_trailer
from encoder_service.images import ImageLimits, check_bytes, check_size, pixels_text, to_rgb
from encoder_service.mp4_boxes import without_sound
from vscan.errors import Cancelled, InvalidArgument
from vscan.upright import upright
from vscan.visual_tokens import SampledFrames

_FIELD = "video"
_GIF, _MP4, _WEBM = "GIF", "MP4", "WebM"
# The type of the first box; QuickTime files before MP4 do not say what they are.
_MP4_BEGINS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_DEMUXERS = {_MP4: "mov", _WEBM: "matroska", _GIF: "gif"}
FORMATS = "MP4 or QuickTime, WebM or Matroska, GIF"
CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "gif")
# No camera takes more, for as long as limits allow: a bound on what a file of a few bytes a frame can cost.
_MAX_FRAMES_PER_SECOND = 240
_MAX_STREAMS = 64
_SEGMENT = b"\x18\x53\x80\x67"
_VP8_SHOWN = 0x10


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoLimits:
    """What is refused."""

    max_bytes: int
    max_seconds: float
    max_frames: int  # that are looked at
    max_decoded_pixels: int  # of all frames that are decoded on the way to those
    frame: ImageLimits


def sample_video(
    data: bytes, limits: VideoLimits, how_many: Callable[[Fraction, int], int], stop: Event
) -> tuple[Iterator[Image.Image], SampledFrames]:
    """Pictures of the frames that are shown at evenly spread moments, decoded while they are taken, and when they come.

    `how_many` says how many of them there are to be, told the video's length in seconds and the number of its frames. A frame
    is turned as its container says, lies on white where it is transparent, and has the size of the first one taken.

    Raises:
        InvalidArgument: not a video of a known format and codec, truncated, damaged, or over a limit; from the pictures too.
        Cancelled: `stop` was set; from the pictures too.
    """
    kind = _recognised(data, limits)
    with _refusing(kind):
        container = _opened(data, kind, limits)
        stream = _pictures_of(container, limits)
        coded = _demuxed(container, stream, limits, len(data), stop)
        timeline = _timeline(coded, stream, limits)
    wanted = timeline.spread(how_many(timeline.duration, len(timeline.ticks)))
    seconds = tuple(float(timeline.seconds(index)) for index in wanted)
    decoder = _Decoder(stream, coded, limits, stop)
    ticks = [timeline.ticks[index] for index in wanted]
    return _pictures(decoder, ticks, kind, container), SampledFrames(seconds, float(timeline.duration))


@dataclass(frozen=True, slots=True)
class _Coded:
    """A frame as it stands in the file."""

    packet: Packet[VideoStream]
    tick: int  # when it is shown
    is_key: bool
    is_shown: bool


@dataclass(frozen=True, slots=True)
class _Timeline:
    """When each frame is shown. Times that are those of a constant rate but for rounding are read as such."""

    ticks: list[int]  # ascending
    unit: Fraction  # seconds of a tick
    length: int  # ticks from the first frame's beginning to the last one's end
    rate: Fraction | None  # frames a second, if constant

    @property
    def duration(self) -> Fraction:
        """In seconds."""
        return self.length * self.unit if self.rate is None else len(self.ticks) / self.rate

    def seconds(self, index: int) -> Fraction:
        """When a frame comes."""
        return (self.ticks[index] - self.ticks[0]) * self.unit if self.rate is None else index / self.rate

    def spread(self, count: int) -> list[int]:
        """The frames shown at i x duration / count; all, each once, where there are no more.

        frames of 3, 1 and 2 seconds, 4 moments        0 1.5 | 3 | 4.5    →    0 0 1 2
        """
        available = len(self.ticks)
        if count >= available:
            return list(range(available))
        if self.rate is not None:
            return [index * available // count for index in range(count)]
        moments = (self.ticks[0] + index * self.length // count for index in range(count))
        return [bisect_right(self.ticks, moment) - 1 for moment in moments]


class _Decoder:
    """Gives the frames that are shown at ascending ticks, decoding as little as possible."""

    def __init__(self, stream: VideoStream, coded: Sequence[_Coded], limits: VideoLimits, stop: Event) -> None:
        self._context = stream.codec_context
        self._context.thread_count = 1  # as many videos are decoded at once as there are threads for images
        self._context.options = {"max_pixels": _max_pixels(limits)}
        self._coded = coded
        self._limits = limits
        self._stop = stop
        self._places = {frame.tick: place for place, frame in enumerate(coded) if frame.is_shown}
        self._next = 0  # place of the packet that goes in next
        self._pixels = 0
        self._frames = self._decoded()
        self._shown: VideoFrame | None = None
        self._ahead: VideoFrame | None = None  # decoded, and shown later than asked

    def frame(self, tick: int) -> VideoFrame:
        """The frame that is shown at this tick, which is a packet's."""
        key = self._key_before(tick)
        if key > self._next:
            self._context.flush_buffers()
            self._next, self._frames, self._shown, self._ahead = key, self._decoded(), None, None
        while self._shown is None or _tick(self._shown) < tick:
            self._ahead = self._ahead or next(self._frames, None)
            if self._ahead is None or _tick(self._ahead) > tick:
                break
            self._shown, self._ahead = self._ahead, None
        if self._shown is None:
            raise ValueError("a frame that cannot be decoded")
        return self._shown

    def _key_before(self, tick: int) -> int:
        """The key frame from which the frame can be decoded: not one that is decoded before it and shown behind it."""
        places = range(self._places[tick], 0, -1)
        return next((place for place in places if self._coded[place].is_key and self._coded[place].tick <= tick), 0)

    def _decoded(self) -> Iterator[VideoFrame]:
        while self._next <= len(self._coded):
            check_awaited(self._stop)
            packet = self._coded[self._next].packet if self._next < len(self._coded) else None  # None: give all that is left
            self._next += 1
            for frame in self._context.decode(packet):
                check_size((frame.width, frame.height), self._limits.frame, _FIELD)
                if frame.is_corrupt:
                    raise ValueError("a damaged frame")
                yield frame
            self._pixels += self._context.width * self._context.height
            if self._pixels > self._limits.max_decoded_pixels:
                limit = pixels_text(self._limits.max_decoded_pixels)
                raise InvalidArgument(_FIELD, "more pixels to decode than are allowed", limit=limit)


def _recognised(data: bytes, limits: VideoLimits) -> str:
    """The format, by the first bytes."""
    check_bytes(data, limits.max_bytes, _FIELD)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _GIF
    if data[4:8] in _MP4_BEGINS:
        return _MP4
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return _WEBM
    raise InvalidArgument(_FIELD, "not a video of a known format", limit=FORMATS)


@contextmanager
def _refusing(kind: str) -> Iterator[None]:
    try:
        yield
    except (InvalidArgument, Cancelled):
        raise
    except MemoryError as error:
        # FFmpeg says that memory is out where a file asks for more than it ever gives.
        if not isinstance(error, av.error.FFmpegError):
            raise
        raise _unreadable(kind) from error
    except Exception as error:  # what a broken file raises has no common class
        raise _unreadable(kind) from error


def _unreadable(kind: str) -> InvalidArgument:
    return InvalidArgument(_FIELD, f"not a readable {kind} file: truncated or damaged")


def _opened(data: bytes, kind: str, limits: VideoLimits) -> InputContainer:
    """A container whose decoders cannot be started by looking into it, and which can read nothing but `data`."""
    if kind == _WEBM and not _is_whole(data):
        raise _unreadable(kind)
    content: bytes | bytearray = data
    if kind == _MP4:
        content = without_sound(data, _max_packets(limits))
    if kind == _GIF:
        content = up_to_trailer(data)
    options = {"codec_whitelist": "none", "protocol_whitelist": "none", "max_streams": str(_MAX_STREAMS)}
    return av.open(
        io.BytesIO(content),
        mode="r",
        format=_DEMUXERS[kind],
        options={**options, "max_pixels": _max_pixels(limits)},
        metadata_errors="replace",
        io_open=_nothing_else,
    )


def _nothing_else(*_: object) -> NoReturn:
    raise PermissionError("a video that names another file")


def _is_whole(data: bytes) -> bool:
    """Whether a WebM file is as long as it says; one that was written as a stream does not say."""
    place = data.find(_SEGMENT, 0, 4096) + len(_SEGMENT)
    width = 9 - data[place].bit_length() if place < len(data) else 9
    unknown = (1 << 7 * width) - 1
    size = int.from_bytes(data[place : place + width], "big") & unknown
    return size == unknown or place + width + size <= len(data)


def _pictures_of(container: InputContainer, limits: VideoLimits) -> VideoStream:
    """The first stream of pictures, of a codec on the list and of a size within the limits."""
    if not container.streams.video:
        raise InvalidArgument(_FIELD, "no pictures")
    stream = container.streams.video[0]
    context = stream.codec_context
    name = context.codec.canonical_name if context is not None else "unknown"
    if name not in CODECS:
        raise InvalidArgument(_FIELD, f"codec {name}", limit=", ".join(CODECS))
    if context.width and context.height:  # each frame is checked again: not every container says it, and none need be right
        check_size((context.width, context.height), limits.frame, _FIELD)
    return stream


def _demuxed(container: InputContainer, stream: VideoStream, limits: VideoLimits, size: int, stop: Event) -> list[_Coded]:
    """All frames of the stream, in the order in which they are decoded."""
    coded: list[_Coded] = []
    most, total = _max_packets(limits), 0
    may_hide = stream.codec_context.codec.canonical_name == "vp8"
    for packet in container.demux(stream):
        check_awaited(stop)
        if not packet.size:
            continue
        total += packet.size
        if len(coded) == most:
            raise InvalidArgument(_FIELD, f"over {most:,} frames", limit=f"{most:,} frames")
        # A table may claim the same bytes for every frame.
        if total > 2 * size or packet.is_corrupt or packet.pts is None:
            raise ValueError("a damaged frame")
        shown = not packet.is_discard and (not may_hide or bool(memoryview(packet)[0] & _VP8_SHOWN))
        coded.append(_Coded(packet, packet.pts, packet.is_keyframe, shown))
    return coded


def _timeline(coded: Sequence[_Coded], stream: VideoStream, limits: VideoLimits) -> _Timeline:
    lengths = {frame.tick: frame.packet.duration or 0 for frame in coded if frame.is_shown}
    if not lengths or stream.time_base is None:
        raise InvalidArgument(_FIELD, "no frames")
    ticks = sorted(lengths)
    length = ticks[-1] - ticks[0]
    length += lengths[ticks[-1]] or length // max(1, len(ticks) - 1)
    timeline = _Timeline(ticks, stream.time_base, length, None)
    timeline = replace(timeline, rate=_constant_rate(timeline, stream.average_rate))
    if timeline.duration > limits.max_seconds:
        raise InvalidArgument(_FIELD, f"{float(timeline.duration):,.1f} seconds", limit=f"{limits.max_seconds:g} seconds")
    return timeline


def _constant_rate(timeline: _Timeline, rate: Fraction | None) -> Fraction | None:
    """`rate`, if no frame comes, and the video does not end, further than a tick from where it would have it."""
    if not rate or rate < 0:
        return None
    each = 1 / (rate * timeline.unit)  # ticks of a frame
    moments = [*(tick - timeline.ticks[0] for tick in timeline.ticks), timeline.length]
    top, bottom = each.numerator, each.denominator
    return rate if all(abs(moment * bottom - index * top) <= bottom for index, moment in enumerate(moments)) else None


def _pictures(decoder: _Decoder, ticks: Sequence[int], kind: str, container: InputContainer) -> Iterator[Image.Image]:
    with _refusing(kind), container:
        size: tuple[int, int] | None = None
        for tick in ticks:
            picture = _upright(decoder.frame(tick))
            size = size or picture.size
            yield picture if picture.size == size else picture.resize(size)


def _upright(frame: VideoFrame) -> Image.Image:
    transparent = any(component.is_alpha for component in frame.format.components)
    return upright(to_rgb(Image.fromarray(frame.to_ndarray(format="rgba" if transparent else "rgb24", threads=1))), frame)


def _tick(frame: VideoFrame) -> int:
    if frame.pts is None:
        raise InvalidArgument(_FIELD, "frames without a time")
    return frame.pts


def _max_packets(limits: VideoLimits) -> int:
    return ceil(limits.max_seconds * _MAX_FRAMES_PER_SECOND)


def _max_pixels(limits: VideoLimits) -> str:
    """For the decoders, which count whole blocks; exact sizes are checked here."""
    return str(2 * limits.frame.max_pixels)


def check_awaited(stop: Event) -> None:
    """Raises Cancelled once nobody waits for the work any more."""
    if stop.is_set():
        raise Cancelled("nobody waits for this video any more")
