"""What the encoder says about one image or video."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vscan_client.answer import ImageReport, Kept
from vscan_client.jsonable import jsonable


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBytes:
    """A dense tensor as it travels: row-major, little-endian. `dtype` is float32, float16 or bfloat16."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeTimings:
    """Durations in milliseconds, measured by the encoder; 0 for a part that did not run."""

    queue_ms: float
    decode_image_ms: float
    vit_ms: float
    reduce_ms: float
    cache_get_ms: float
    cache_put_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One image or video, encoded. `tokens` [T, hidden] and `kept` only where tokens were asked for."""

    image: ImageReport
    content_key: bytes
    fingerprint: bytes
    timings: EncodeTimings
    tokens: TensorBytes | None = None
    kept: Kept | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values, without the tokens themselves."""
        found = dict(jsonable(self))
        if self.tokens is not None:
            found["tokens"] = {"dtype": self.tokens.dtype, "shape": list(self.tokens.shape)}
        return found
