"""Figures of hand-made records; each is worked out beside it."""

from __future__ import annotations

import math

import pytest

from studies.load.figures import Targets, percentile, percentiles, ratio_over_rounds, summary
from studies.load.record import Record
from studies.load.report import gains, hit_rates
from studies.load.workload import Ask

TARGETS = Targets(ttft_ms=500, tpot_ms=50, late_ms=10)


def record(
    content_s: list[float],
    *,
    end_s: float,
    due_s: float | None = None,
    sent_s: float = 0.0,
    tokens: int | None = None,
    code: str = "OK",
) -> Record:
    ask = Ask(0, due_s, (0,), "what?", None)
    return Record(ask, sent_s, content_s, end_s, code, completion_tokens=len(content_s) if tokens is None else tokens)


def test_percentiles_lie_between_the_closest_ranks() -> None:
    assert percentile([], 50) is None
    assert percentile([7.0], 99) == 7.0
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5  # place 1.5 of 1 2 3 4
    assert percentile([0.0, 10.0], 95) == 9.5
    assert percentiles([None]) is None
    assert percentiles([float(value) for value in range(101)]) == {
        "p50": 50,
        "p90": 90,
        "p95": 95,
        "p99": 99,
        "mean": 50,
        "max": 100,
        "count": 101,
    }


def test_a_percentile_needs_a_value_beyond_it() -> None:
    known = percentiles([float(value) for value in range(99)])
    assert known is not None
    assert [name for name, value in known.items() if value is None] == ["p99"]
    few = percentiles([1.0, 2.0, 3.0])
    assert few is not None
    assert (few["p50"], few["p90"], few["max"], few["count"]) == (2.0, None, 3.0, 3)


def test_times_of_a_request_count_from_when_it_was_due() -> None:
    # Due at 1.0 s, sent at 3.0 s because something held the generator up: its caller waited from 1.0 s on.
    late = record([3.5, 3.6, 3.8], end_s=3.9, due_s=1.0, sent_s=3.0)
    assert late.ttft_ms == pytest.approx(2500)
    assert late.total_ms == pytest.approx(2900)
    assert late.late_ms == pytest.approx(2000)
    assert late.tpot_ms == pytest.approx(150)  # 0.3 s for the two tokens after the first
    assert late.gaps_ms == pytest.approx([100, 200])
    # In a closed loop nothing is due.
    closed = record([3.5, 3.6, 3.8], end_s=3.9, sent_s=3.0)
    assert closed.late_ms is None
    assert closed.ttft_ms == pytest.approx(500)


def test_tokens_after_the_first_are_the_servers_count_not_pieces() -> None:
    assert record([0.1, 0.5], end_s=0.5, tokens=9).tpot_ms == pytest.approx(50)  # 0.4 s for 8 tokens in one piece
    assert record([0.1], end_s=0.2, tokens=1).tpot_ms is None


@pytest.mark.parametrize(
    ("told", "miscounted", "tokens"),
    [(None, True, 3), (1, True, 3), (0, True, 3), (900, True, 3), (3, False, 3), (4, False, 4)],
    ids=["no count", "one token", "none", "more than asked", "as pieces", "several in a piece"],
)
def test_a_count_that_cannot_be_does_not_make_an_answer_good(told: int | None, miscounted: bool, tokens: int) -> None:
    # Three pieces, a second apart; four tokens were asked for. Not one of the counts makes that quick.
    made = Record(Ask(0, None, (0,), "what?", 4), 0.0, [0.1, 1.1, 2.1], 2.1, completion_tokens=told)
    assert (made.miscounted, made.answer_tokens, made.short) == (miscounted, tokens, tokens < 4)
    assert made.tpot_ms == pytest.approx(2000 / (tokens - 1))
    assert not made.meets(500, 50)
    assert summary([[made]], TARGETS)["miscounted"] == miscounted


def test_goodput_counts_what_met_both_targets_over_the_whole_time() -> None:
    good = record([0.5, 0.53125], end_s=0.6)  # 500 ms, which is just met, then 31.25 ms
    slow_start = record([0.51, 0.52], end_s=0.6)
    slow_tokens = record([0.1, 0.151], end_s=0.2)
    one_token = record([0.2], end_s=2.0)
    failed = record([0.1], end_s=0.2, code="UNAVAILABLE")
    found = summary([[good, slow_start, slow_tokens, one_token, failed], [good]], TARGETS)
    assert found["requests"] == 6
    assert found["answered"] == 5
    assert found["failures"] == {"UNAVAILABLE": 1}
    assert found["seconds"] == pytest.approx(2.6)  # until 2.0 s, and until 0.6 s
    assert found["goodput_per_s"] == pytest.approx(3 / 2.6)
    assert found["requests_per_s"] == pytest.approx(5 / 2.6)
    assert found["good_share"] == 0.5
    assert found["ttft_ms"]["max"] == pytest.approx(510)
    assert found["tokens"]["completion"] == 9  # 2 + 2 + 2 + 1, and 2
    assert found["generator_late_ms"] is None
    assert not found["generator_fell_behind"]


def test_nothing_that_was_answered_has_no_percentiles() -> None:
    found = summary([[record([], end_s=1.0, code="UNAVAILABLE")]], TARGETS)
    assert (found["ttft_ms"], found["goodput_per_s"], found["tokens"]["completion"]) == (None, 0.0, None)
    assert (found["miscounted"], found["short_answers"]) == (0, 0)


@pytest.mark.parametrize(("late_s", "marked"), [(0.009, False), (0.5, True)])
def test_a_run_whose_generator_fell_behind_is_marked(late_s: float, marked: bool) -> None:
    records = [record([1.0], end_s=1.0, due_s=0.1, sent_s=0.1 + late_s) for _ in range(3)]
    assert summary([records], TARGETS)["generator_fell_behind"] is marked


def test_a_ratio_is_that_of_each_round_with_students_interval() -> None:
    # Ratios 1 and 4: logarithms 0 and ln 4, mean ln 2, standard deviation ln 4 / √2; over √2 that is ln 2. t of 1 is 12.706.
    found = ratio_over_rounds([3.0, 8.0], [3.0, 2.0])
    assert found is not None
    assert found.ratio == pytest.approx(2)
    assert found.low == pytest.approx(2 / 2**12.706)
    assert found.high == pytest.approx(2 * 2**12.706)
    same = ratio_over_rounds([4.0, 6.0, 2.0], [2.0, 3.0, 1.0])
    assert same is not None
    assert [same.ratio, same.low, same.high] == pytest.approx([2, 2, 2])
    assert ratio_over_rounds([1.0, 2.0], [1.0, 0.0]) is None
    one = ratio_over_rounds([3.0], [2.0])
    assert one is not None
    assert (math.isclose(one.ratio, 1.5), one.low, one.high) == (True, None, None)


def test_gains_are_of_each_step_of_all_together_and_over_peers() -> None:
    def rounds(goodput: float, ttft: float) -> list[dict[str, float | None]]:
        return [{"goodput_per_s": goodput, "requests_per_s": 2 * goodput, "ttft_p50_ms": ttft, "ttft_p95_ms": None}] * 2

    names = [("peer", True), ("a", False), ("b", False), ("c", False)]
    found = gains(names, {"peer": rounds(1, 400), "a": rounds(2, 200), "b": rounds(3, 100), "c": rounds(12, 50)})
    assert [(gain["from"], gain["to"]) for gain in found] == [("a", "b"), ("b", "c"), ("a", "c"), ("peer", "a"), ("peer", "c")]
    assert [gain["goodput"]["ratio"] for gain in found] == pytest.approx([1.5, 4, 6, 2, 12])
    assert [gain["ttft_p50"]["ratio"] for gain in found] == pytest.approx([2, 2, 4, 2, 8])
    assert found[0]["ttft_p95"] is None


def test_hit_rates_are_shares_of_images() -> None:
    assert hit_rates({"memory": 3, "encoded": 1}) == {"memory": 0.75, "encoded": 0.25}
    assert hit_rates({}) == {}
