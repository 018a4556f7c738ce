"""Pictures and videos as tasks of lmms-eval hold them, as the SDK's."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vscan.errors import InvalidArgument
from vscan.specs import FrameCount, FrameRate, FrameSampling
from vscan_client import Image, Video

if TYPE_CHECKING:
    from PIL import Image as Pictures

_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
_PNG_MODES = ("1", "L", "LA", "RGB", "RGBA")
_REMOTE = ("http://", "https://", "data:", "s3://")


def visual_of(held: Any, sampling: FrameSampling | None) -> Image | Video:
    """The image or video that a task holds: a PIL picture, bytes of one, a path, frames in a list, or a dictionary of these.

    A path with a picture's ending is an image, any other a video, as in lmms-eval. `sampling` says which frames of a video are
    looked at.

    Raises:
        InvalidArgument: sound, an address beyond this machine, a cut of a video, or a file that cannot be read.
    """
    if isinstance(held, dict):
        return _named(held, sampling)
    if isinstance(held, bytes):
        return Image.from_bytes(held)
    if isinstance(held, str | Path):
        return _file(str(held), sampling)
    if isinstance(held, list | tuple):
        return Video.from_frames([png(frame) for frame in held], frames_per_second=_rate(sampling))
    return Image.from_bytes(png(held))


def video_of(held: Any, sampling: FrameSampling | None) -> Video:
    """The same of what is meant as a video: a file whatever its ending, a GIF too."""
    if isinstance(held, str | Path):
        return Video.from_path(_local(str(held)), frames=_count(sampling), frames_per_second=_rate(sampling))
    visual = visual_of(held, sampling)
    if isinstance(visual, Video):
        return visual
    raise InvalidArgument("video", f"{type(held).__name__}", limit="a path, or frames")


def png(picture: Pictures.Image) -> bytes:
    """A picture as a PNG file: every pixel as it is, nothing else of its file (no orientation, no profile, no comment).

    Modes that PNG has not, and 16-bit ones, become RGB as lmms-eval's own models make them; a palette with transparency RGBA.
    """
    if not hasattr(picture, "save"):
        raise InvalidArgument("image", f"{type(picture).__name__}", limit="a PIL picture, bytes, or a path")
    mode = picture.mode
    if mode not in _PNG_MODES:
        mode = "RGBA" if "transparency" in picture.info else "RGB"
    bare = picture.convert(mode) if mode != picture.mode else picture.copy()
    bare.info.clear()
    file = io.BytesIO()
    bare.save(file, "PNG", compress_level=1, exif=b"", icc_profile=None)
    return file.getvalue()


def _named(held: dict[str, Any], sampling: FrameSampling | None) -> Image | Video:
    if "array" in held or held.get("type") == "audio":
        raise InvalidArgument("audio", "sound", limit="images and videos")
    if any(held.get(edge) is not None for edge in ("video_start", "video_end", "start_time", "end_time")):
        raise InvalidArgument("video", "a part of a video, from one time to another", limit="whole files, or frames")
    inner = next((held[key] for key in ("url", "path", "image", "video", "bytes") if held.get(key) is not None), None)
    if inner is None:
        raise InvalidArgument("image", f"a dictionary with {', '.join(held) or 'nothing'}", limit="with url, path or bytes")
    return video_of(inner, sampling) if held.get("type") == "video" else visual_of(inner, sampling)


def _file(path: str, sampling: FrameSampling | None) -> Image | Video:
    if path.lower().endswith(_PICTURE_ENDINGS):
        return Image.from_path(_local(path))
    return video_of(path, sampling)


def _local(path: str) -> str:
    if path.lower().startswith(_REMOTE):
        raise InvalidArgument("image", f"{path[:60]!r}", limit="files of this machine")
    return path.removeprefix("file://")


def _count(sampling: FrameSampling | None) -> int | None:
    return sampling.count if isinstance(sampling, FrameCount) else None


def _rate(sampling: FrameSampling | None) -> float | None:
    return sampling.per_second if isinstance(sampling, FrameRate) else None


def visuals_of(held: Any, sampling: FrameSampling | None) -> list[Image | Video]:
    """All that a task's `doc_to_visual` gave. Raises InvalidArgument as `visual_of`, with the place."""
    if held is None:
        return []
    several: Sequence[Any] = held if isinstance(held, list | tuple) else [held]
    visuals = []
    for place, each in enumerate(several):
        try:
            visuals.append(visual_of(each, sampling))
        except InvalidArgument as error:
            raise error.below(f"visuals[{place}]") from error
    return visuals
