"""Whether an error's text says nothing of the machine that it comes from."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

MAX_CHARS = 1000

_LIBRARIES = (
    *("PIL", "Pillow", "libav\\w*", "FFmpeg", "torch", "numpy", "transformers", "safetensors"),
    *("llguidance", "redis", "zstd", "protobuf", "upb", "pydantic", "asyncio"),
)
_TELLING = {
    "a path": r"(?<![\w.])/(?:[\w.-]+/)+[\w.-]+",
    "a file of Python": r"\b\w+\.py\b|site-packages",
    "a memory address": r"\b0x[0-9a-fA-F]{5,}",
    "a traceback": r"Traceback|most recent call|line \d+, in ",
    "an exception's class": r"\b[A-Z]\w*(?:Error|Exception)\b(?!_)",
    "a library": r"\b(?:" + "|".join(_LIBRARIES) + r")\b",
    "an address": r"\b(?:\d{1,3}\.){3}\d{1,3}(?::\d+)?\b|\bipv[46]:|\blocalhost:\d+|\bunix:",
    "a control character": r"[\x00-\x08\x0b-\x1f\x7f]",
    "a line break": r"\n",
}
_PATTERNS = {what: re.compile(pattern) for what, pattern in _TELLING.items()}


def told(text: str) -> str:
    """What a text tells of the machine; empty if nothing."""
    if len(text) > MAX_CHARS:
        return f"{len(text)} characters"
    for what, pattern in _PATTERNS.items():
        if found := pattern.search(text):
            return f"{what}: {found[0]!r}"
    own = {socket.gethostname(), str(Path.home()), sys.prefix} - {"", "/", "localhost"}
    return next((f"this machine: {name!r}" for name in own if len(name) > 3 and name in text), "")
