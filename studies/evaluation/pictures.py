"""Images of a benchmark: files of its folder, or carried inside the file of questions."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vscan.errors import InvalidArgument
from vscan_client import Image


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that is read when it is asked about: a file, or the base64 text of one."""

    path: Path | None = None
    base64_text: str = field(default="", repr=False)

    def load(self) -> Image:
        """The image's bytes. Raises InvalidArgument if they cannot be had."""
        if self.path is not None:
            return Image.from_path(self.path)
        try:
            return Image.from_bytes(base64.b64decode(self.base64_text, validate=True))
        except binascii.Error as error:
            raise InvalidArgument("--images", f"not base64: {error}") from error


def inside(folder: Path, name: str) -> Path:
    """The file of that name in the folder: a name with `/` lies below it, and none leads out of it.

    Raises:
        InvalidArgument: the name is empty or leads elsewhere.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise InvalidArgument("--images", f"{name!r} is not the name of a file in {folder}")
    return folder.joinpath(*parts)
