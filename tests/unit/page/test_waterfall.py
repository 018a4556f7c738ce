"""Bars of a call lie within it, and those of the decoder one after the other."""

import pytest

from page_service.waterfall import bars
from vscan_client import ClientReport, Timings


def test_the_decoders_parts_are_laid_at_the_first_token() -> None:
    timings = Timings(
        resolve_images_ms=4, queue_ms=1, prefill_ms=5, prune_ms=2, decode_ms=10, time_to_first_token_ms=10, total_ms=20
    )
    drawn = list(bars(timings, _client(first_token_ms=13, total_ms=25)))
    assert [(bar.depth, bar.start_ms, bar.duration_ms) for bar in drawn] == [
        (0, 0, 25),
        (1, 3, 20),
        (2, 3, 4),
        (2, 7, 1),
        (2, 8, 5),
        (3, 9.5, 2),
        (2, 13, 10),
    ]


@pytest.mark.parametrize("first_token_ms", [None, 0.0, 9.0])
def test_clocks_that_disagree_leave_no_bar_outside(first_token_ms: float | None) -> None:
    timings = Timings(
        resolve_images_ms=4, queue_ms=1, prefill_ms=5, prune_ms=2, decode_ms=10, time_to_first_token_ms=10, total_ms=20
    )
    drawn = list(bars(timings, _client(first_token_ms=first_token_ms, total_ms=19)))
    assert all(bar.start_ms >= 0 and bar.start_ms + bar.duration_ms <= drawn[0].duration_ms for bar in drawn)


def test_an_answer_that_was_written_before_its_first_token_was_told_lies_within_the_call() -> None:
    timings = Timings(
        resolve_images_ms=27.1,
        queue_ms=0.8,
        prefill_ms=18.1,
        prune_ms=0.9,
        decode_ms=32.6,
        time_to_first_token_ms=69.8,
        total_ms=86.3,
    )
    drawn = list(bars(timings, _client(first_token_ms=86.2, total_ms=102.7)))
    assert all(bar.start_ms + bar.duration_ms <= drawn[0].duration_ms for bar in drawn)
    *_, prefill, _, decode = drawn
    assert prefill.start_ms + prefill.duration_ms == pytest.approx(decode.start_ms)


def _client(*, first_token_ms: float | None, total_ms: float) -> ClientReport:
    return ClientReport(attempts=1, sent_bytes=1, first_token_ms=first_token_ms, total_ms=total_ms, trace_id="")
