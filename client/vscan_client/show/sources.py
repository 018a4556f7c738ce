"""The pictures behind an answer: an image as people see it, and the frames of a video that were looked at.

With Pillow, and PyAV for video files.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from PIL import Image, ImageOps

from vscan.errors import InvalidArgument
from vscan_client.answer import ImageReport
from vscan_client.cli.extras import needs_extra
from vscan_client.content import Video, Visual

# Twice a panel at most: what is drawn is never larger.
_MAX_SIDE = 1024


def pictures_of(visual: Visual, report: ImageReport) -> list[Image.Image]:
    """The image, or a picture for each frame that was looked at; RGB, upright, at most 1024 pixels a side.

    Raises:
        InvalidArgument: only the name is known, or the file cannot be read here.
        StartupError: a video file, and PyAV is not installed.
    """
    if not visual.is_whole:
        raise InvalidArgument("images", "only the digest was given", limit="the file itself, to draw on")
    if not isinstance(visual, Video):
        return [opened(visual.data or b"")]
    if visual.frames:
        return [opened(frame) for frame in visual.frames]
    return _frames(visual.data or b"", report.frames.seconds if report.frames else ())


def opened(data: bytes) -> Image.Image:
    """The first picture of an image file. Raises InvalidArgument."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            image.draft("RGB", (_MAX_SIDE, _MAX_SIDE))  # a large JPEG is read at a fraction of its size
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidArgument("images", f"cannot be drawn on: {error}") from error
    with suppress(Exception):  # unreadable EXIF data: the picture is taken as it lies, as the encoder does
        ImageOps.exif_transpose(image, in_place=True)
    return _small(_rgb(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return image


def _frames(data: bytes, seconds: Sequence[float]) -> list[Image.Image]:
    """The frames that come nearest to these times after the first one. Every frame up to the last of them is decoded."""
    with needs_extra("show", "drawing on a video"):
        import av

        from vscan.upright import upright
    try:
        # Nothing but these bytes is read, whatever the file names.
        with av.open(io.BytesIO(data), "r", metadata_errors="replace", io_open=_nothing_else) as container:
            frames = _nearest(container.decode(video=0), seconds)
            return [_small(upright(frame.to_image(), frame)) for frame in frames]
    except (av.error.FFmpegError, ValueError, IndexError, PermissionError) as error:
        raise InvalidArgument("video", f"cannot be drawn on: {error}") from error


def _nearest(frames: Iterable[Any], seconds: Sequence[float]) -> Iterator[Any]:
    """Times in files are rounded to ticks, so a frame may come a little before or behind the time that the server names."""
    taken = 0
    begin, before = None, None
    for frame in frames:
        begin = frame.time if begin is None else begin
        while taken < len(seconds) and frame.time - begin >= (wanted := seconds[taken]):
            nearer = before is not None and abs(before.time - begin - wanted) < abs(frame.time - begin - wanted)
            yield before if nearer else frame
            taken += 1
        if taken == len(seconds):
            return
        before = frame
    if before is None:
        raise ValueError("no frames")
    yield from [before] * (len(seconds) - taken)


def _nothing_else(*_: object) -> NoReturn:
    raise PermissionError("it names another file")
