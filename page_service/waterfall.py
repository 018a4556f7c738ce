"""Where the time of an answer went, as bars on one axis.

The SDK's clock says when its call began, when its first token came and when it ended; the decoder's says how long each of its
parts took. Both are laid over each other at the first token: what the way there and back took is not told apart.

    SDK      |------------------------------------|  total
    decoder    |----------------------------------|  total
                 images | queue | prefill | decode
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vscan_client.answer import ClientReport, Timings


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of the time. `depth`: 0 contains all, 1 the decoder's, 2 its parts, 3 a part of those."""

    name: str
    measured_by: str
    depth: int
    start_ms: float
    duration_ms: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, to a hundredth of a millisecond."""
        return {
            "name": self.name,
            "measured_by": self.measured_by,
            "depth": self.depth,
            "start_ms": round(self.start_ms, 2),
            "duration_ms": round(self.duration_ms, 2),
            "note": self.note,
        }


def bars(timings: Timings, client: ClientReport) -> Iterator[Bar]:
    """The call, the decoder's work on it, and its parts, in order."""
    first = timings.time_to_first_token_ms
    offset = max(0.0, (client.first_token_ms or client.total_ms) - first)
    whole = max(client.total_ms, offset + timings.total_ms)
    yield Bar("the whole call", "the SDK", 0, 0.0, whole, "with the way to the decoder and back")
    yield Bar("in the decoder", "the decoder", 1, offset, timings.total_ms)
    yield Bar(
        "find the images' tokens", "the decoder", 2, offset, timings.resolve_images_ms, "its memory, Redis, or the encoder"
    )
    queued = offset + timings.resolve_images_ms
    yield Bar("wait for the engine", "the decoder", 2, queued, timings.queue_ms)
    prefill = queued + timings.queue_ms
    yield Bar("read the prompt (prefill)", "the decoder", 2, prefill, timings.prefill_ms, "through all layers")
    prune = prefill + (timings.prefill_ms - timings.prune_ms) / 2
    yield Bar("prune visual tokens", "the decoder", 3, prune, timings.prune_ms, "within prefill; when exactly is not told")
    # Not at the first token: that one counts as come when it has left the engine, which goes on meanwhile.
    decode = max(0.0, min(prefill + timings.prefill_ms, whole - timings.decode_ms))
    yield Bar("write the answer (decode)", "the decoder", 2, decode, timings.decode_ms, "after the first token")
