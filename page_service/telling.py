"""Events of an answer as the page's JSON. Where patches lie is reckoned here, by `vscan_client.show`; the page only draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from page_service.waterfall import bars
from vscan_client.answer import Answer, Area, ImageReport, PickedBy, Place, Started
from vscan_client.show.facts import merged_text, place_text, scans_text
from vscan_client.show.geometry import Mark, View, views_of

# Of a longer video so many frames are drawn, spread evenly, as `vscan show` does.
MAX_FRAMES = 24
_SIGNS = {PickedBy.LOCAL: "local", PickedBy.GLOBAL: "global", PickedBy.ALL: "all"}
_PLACES = {
    Place.ENCODED: "encoded now",
    Place.MEMORY: "found in the decoder's memory",
    Place.REDIS: "found in Redis",
    Place.SHARED: "encoded now, for another question too",
    Place.ENCODER_MEMORY: "found in the encoder's memory",
    Place.UNKNOWN: "found somewhere that this page does not know",
}


def started(event: Started) -> dict[str, Any]:
    """The request was accepted, and this was kept of its images and videos."""
    return {"images": [_image(report) for report in event.images], "prompt_tokens": event.prompt_tokens}


def finished(answer: Answer) -> dict[str, Any]:
    """How it ended, what it cost, and which tokens went on past each pruning layer (their rows among those of their image)."""
    usage, timings, client = answer.usage, answer.timings, answer.client
    return {
        "text": answer.text,
        "reason": answer.finish_reason.value,
        "tokens": {
            "before": usage.visual_tokens_unreduced,
            "after": usage.visual_tokens,
            "average": round(usage.visual_tokens_average, 1),
            "prompt": usage.prompt_tokens,
            "reused": usage.reused_prompt_tokens,
            "answer": usage.completion_tokens,
        },
        "pruning": [
            {
                "layer": layer.layer,
                "before": layer.tokens_before,
                "after": layer.tokens_after,
                "survivors": [list(rows) for rows in layer.survivors],
            }
            for layer in answer.pruning
        ],
        "ttft_ms": round(timings.time_to_first_token_ms, 1),
        "total_ms": round(timings.total_ms, 1),
        "times": {
            "find_ms": round(timings.resolve_images_ms, 1),
            "wait_ms": round(timings.queue_ms, 1),
            "prefill_ms": round(timings.prefill_ms, 1),
        },
        "sent_bytes": client.sent_bytes,
        "trace_id": client.trace_id,
        "server": client.server,
        "bars": [bar.to_dict() for bar in bars(timings, client)],
    }


def _image(report: ImageReport) -> dict[str, Any]:
    return {
        "sha256": report.sha256.hex(),
        "tokens_before": report.tokens_before,
        "tokens_after": report.tokens_after,
        "place": _PLACES[report.place],
        "frames": None if report.frames is None else [round(second, 3) for second in report.frames.seconds],
        "kept": scans_text(report),
        "merged": merged_text(report),
        "views": [_view(view, report) for view in _drawn(report)],
    }


def _drawn(report: ImageReport) -> Iterable[View]:
    views = views_of(report)
    if report.frames is None or len(views) <= MAX_FRAMES:
        return views
    return [views[place * len(views) // MAX_FRAMES] for place in range(MAX_FRAMES)]


def _view(view: View, report: ImageReport) -> dict[str, Any]:
    return {
        "frame": view.frame,
        "title": place_text(view, report),
        "rows": view.rows,
        "columns": view.columns,
        "window": _box(view.window),
        "area": _box(view.area),
        "hides": view.hides,
        "is_stated": view.is_stated,
        "marks": list(map(_mark, view.marks)),
        "newlines": list(map(_mark, view.newlines)),
    }


def _mark(mark: Mark) -> dict[str, Any]:
    return {
        "token": mark.token,
        "row": mark.row + 1,
        "column": mark.column + 1,
        "box": _box(mark.patch),
        "sign": _SIGNS.get(mark.picked_by, "other"),
        "merged": list(map(_box, mark.merged)),
    }


def _box(area: Area) -> list[float]:
    """Left, top, width and height in fractions of the picture."""
    return list(_rounded(area.left, area.top, area.right - area.left, area.bottom - area.top))


def _rounded(*numbers: float) -> Iterator[float]:
    return (round(number, 5) for number in numbers)
