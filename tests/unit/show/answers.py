"""Answers as a service would give them, made by hand."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from vscan_client import Answer, ClientReport, FinishReason, ImageReport, PruneReport, Timings, Usage


def answer(images: Sequence[ImageReport], pruning: Sequence[PruneReport] = (), text: str = "red") -> Answer:
    """About these images."""
    after, before = (sum(getattr(image, f"tokens_{when}") for image in images) for when in ("after", "before"))
    times = Timings(
        resolve_images_ms=1, queue_ms=0, prefill_ms=1, prune_ms=0, decode_ms=1, time_to_first_token_ms=2, total_ms=3
    )
    return Answer(
        text=text,
        tokens=(),
        finish_reason=FinishReason.END_OF_SEQUENCE,
        usage=Usage(
            prompt_tokens=after + 5,
            visual_tokens=after,
            visual_tokens_unreduced=before,
            visual_tokens_average=after / 2,
            completion_tokens=1,
        ),
        timings=times,
        images=tuple(images),
        pruning=tuple(pruning),
        seed=0,
        request_id="r",
        client=ClientReport(attempts=1, sent_bytes=1, first_token_ms=1.0, total_ms=2.0, trace_id=""),
        samples=(),
    )


def png(image: Image.Image) -> bytes:
    """As a file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
