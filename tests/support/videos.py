"""Small video files made with PyAV. Each frame shows its number as bars, black or white, that survive any codec:

frame 5     ░░█░█      the upper half: bits, the highest one left
            ▒▒▒▒▒      the lower half: grey, so that a picture that is not upright is not read as its number
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

BITS = 12
SIZE = (96, 64)
# Format and encoder of each kind of file that the encoder takes and PyAV's FFmpeg can write.
KINDS: Mapping[str, tuple[str, str]] = {
    "mp4 h264": ("mp4", "libx264"),
    "mp4 hevc": ("mp4", "libx265"),
    "mp4 av1": ("mp4", "libsvtav1"),
    "mp4 mpeg4": ("mp4", "mpeg4"),
    "mov mjpeg": ("mov", "mjpeg"),
    "mkv h264": ("matroska", "libx264"),
    "webm vp8": ("webm", "libvpx"),
    "webm vp9": ("webm", "libvpx-vp9"),
    "gif": ("gif", "gif"),
}
ONE = 1 << 16  # in a display matrix
# Its a, b, c, d, and how the camera's picture was turned.
TURNED: Sequence[tuple[tuple[int, int, int, int], Image.Transpose | None]] = (
    ((ONE, 0, 0, ONE), None),
    ((0, ONE, -ONE, 0), Image.Transpose.ROTATE_90),
    ((-ONE, 0, 0, -ONE), Image.Transpose.ROTATE_180),
    ((0, -ONE, ONE, 0), Image.Transpose.ROTATE_270),
    ((-ONE, 0, 0, ONE), Image.Transpose.FLIP_LEFT_RIGHT),
    ((ONE, 0, 0, -ONE), Image.Transpose.FLIP_TOP_BOTTOM),
    ((0, ONE, ONE, 0), Image.Transpose.TRANSPOSE),
    ((0, -ONE, -ONE, 0), Image.Transpose.TRANSVERSE),
)
_SOUND: Mapping[str, str] = {"mp4": "aac", "mov": "pcm_s16le", "matroska": "libopus", "webm": "libopus"}
_OPTIONS: Mapping[str, dict[str, str]] = {
    "libx264": {"preset": "ultrafast", "bf": "2", "g": "12", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:keyint=12"},
    "libsvtav1": {"preset": "12", "g": "12", "svtav1-params": "lp=1"},
    "libvpx": {"deadline": "realtime", "g": "12", "auto-alt-ref": "0"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "12"},
}


def numbered(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """The picture of a frame."""
    bars = [[255 * (number >> bit & 1) for bit in reversed(range(BITS))], [128] * BITS]
    return Image.fromarray(np.array(bars, np.uint8)).resize(size, Image.Resampling.NEAREST).convert("RGB")


def number_of(picture: Image.Image) -> int:
    """The number that a picture shows; -1 if none."""
    upper, lower = (
        np.asarray(picture.convert("L").resize((4 * BITS, 8), Image.Resampling.BOX))[row, 1::4].astype(int) for row in (1, 6)
    )
    if abs(lower - 128).max() > 48:
        return -1
    return sum(int(level > 128) << bit for bit, level in zip(reversed(range(BITS)), upper, strict=True))


def video(
    kind: str = "mp4 h264",
    frames: int | Iterable[Image.Image] = 30,
    *,
    rate: int | Fraction = 10,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    size: tuple[int, int] = SIZE,
    sound: bool = False,
    pixel_format: str | None = None,
    options: Mapping[str, str] | None = None,
    muxing: Mapping[str, str] | None = None,
) -> bytes:
    """A video file: frames numbered from 0 of `size`, or these pictures.

    Args:
        rate: frames a second; `times` in ticks of `time_base` instead of even ones.
        options, muxing: of the encoder and of the container, as FFmpeg names them.
    """
    container_format, codec = KINDS[kind]
    file = io.BytesIO()
    with av.open(file, "w", format=container_format, options=dict(muxing or {})) as container:
        stream: Any = container.add_stream(codec, rate=rate, options={**_OPTIONS.get(codec, {}), **(options or {})})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format or {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.codec_context.time_base = ticks = time_base or 1 / Fraction(rate)
        tone: Any = container.add_stream(_SOUND[container_format], rate=48_000, layout="mono") if sound else None
        pictures = (numbered(number, size) for number in range(frames)) if isinstance(frames, int) else frames
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.asarray(picture))
            frame.pts, frame.time_base = times[index] if times else index, ticks
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if tone is not None:
            container.mux(_silence(tone))
    return file.getvalue()


def sound_alone() -> bytes:
    """An MP4 file without pictures."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        container.mux(_silence(container.add_stream("aac", rate=48_000, layout="mono")))
    return file.getvalue()


def full_decode(data: bytes) -> list[tuple[int, Image.Image]]:
    """Time and picture of every frame, as PyAV gives them without further ado."""
    with av.open(io.BytesIO(data), "r") as container:
        return [(frame.pts or 0, Image.fromarray(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]


def changed(data: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """An MP4 file with other bytes so far behind the beginning of the name of its first box of this kind."""
    place = data.index(box) + offset
    return data[:place] + value + data[place + len(value) :]


def turned_video(number: int, matrix: tuple[int, int, int, int], turn: Image.Transpose | None) -> bytes:
    """An MP4 file whose container says how to turn its frames: what the camera saw is turned the other way."""
    upright = numbered(number)
    seen = upright if turn is None else upright.transpose(turn)
    a, b, c, d = matrix
    display = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return changed(video(frames=[seen] * 3, size=seen.size), b"tkhd", 44, display)


def _silence(tone: Any) -> list[Any]:
    """A second."""
    samples = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), format="s16", layout="mono")
    samples.sample_rate = 48_000
    return [*tone.encode(samples), *tone.encode(None)]
