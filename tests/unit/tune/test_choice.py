"""Hand-made results whose front and choice are known."""

from __future__ import annotations

import pytest

from studies.statistics import Estimate
from studies.tune.choice import Difference, choose, pareto_front
from studies.tune.figures import Comparison, Figures, build_figures
from studies.tune.point import NO_REDUCTION
from studies.tune.questions import Question
from studies.tune.report import report
from tests.unit.tune.made import figures, measured, point
from vscan.specs import Rater, ReductionMethod
from vscan_client.content import Image

CONTROL = "random at layer 4"


def within(half_width: float) -> Difference:
    """Differences as they are, with this much on both sides; none of a point to itself."""

    def difference(one: Figures, other: Figures) -> Estimate:
        value = one.accuracy.value - other.accuracy.value
        width = 0.0 if one is other else half_width
        return Estimate(value, value - width, value + width)

    return difference


def test_the_front_has_what_nothing_beats() -> None:
    all_, good, dear, cheap, worse = (
        figures(144, 0.98),
        figures(32, 0.97),
        figures(40, 0.96),
        figures(16, 0.95),
        figures(17, 0.95),
    )
    assert pareto_front([all_, good, dear, cheap, worse]) == [cheap, good, all_]


def test_of_equals_the_front_has_the_candidate() -> None:
    control, candidate = figures(16, 0.9, kind=CONTROL), figures(16, 0.9)
    assert pareto_front([control, candidate]) == [candidate]


def test_the_cheapest_within_the_tolerance_is_chosen() -> None:
    points = [figures(144, 0.980), figures(32, 0.978), figures(16, 0.971), figures(8, 0.960)]
    choice = choose(points, within(0.0), 0.01)
    assert choice.best is points[0]
    assert choice.chosen.figures is points[2]


def test_exactly_the_tolerance_is_allowed() -> None:
    points = [figures(144, 0.98), figures(16, 0.97)]
    assert choose(points, within(0.0), 0.01).chosen.figures is points[1]


def test_what_is_within_the_tolerance_by_its_mean_alone_is_not_chosen_but_named() -> None:
    points = [figures(144, 0.980), figures(32, 0.979), figures(16, 0.975)]
    choice = choose(points, within(0.008), 0.01)
    assert choice.chosen.figures is points[1]
    assert [verdict.figures for verdict in choice.undecided] == [points[2]]
    assert any("more questions would tell" in line for line in report(points, choice, tolerance=0.01))


def test_with_wide_intervals_the_best_is_chosen() -> None:
    points = [figures(144, 0.98), figures(16, 0.98 - 1e-4)]
    assert choose(points, within(0.05), 0.01).chosen.figures is points[0]


def test_of_equally_accurate_ones_the_dearest_is_the_best_until_a_cheaper_one_is_shown_to_be_as_good() -> None:
    tied = [figures(144, 0.98), figures(32, 0.98)]
    assert choose(tied, within(0.05), 0.01).chosen.figures is tied[0]
    shown = choose(tied, within(0.005), 0.01)
    assert (shown.best, shown.chosen.figures) == (tied[0], tied[1])


def test_of_equal_tokens_the_more_accurate_is_chosen() -> None:
    points = [figures(144, 0.98), figures(16, 0.970), figures(16, 0.975)]
    assert choose(points, within(0.0), 0.02).chosen.figures is points[2]
    points = [figures(16, 0.97, flops=2.0), figures(16, 0.97, flops=1.0)]
    assert choose(points, within(0.0), 0.02).chosen.figures is points[1]


def test_a_control_is_not_chosen_while_the_front_has_anything_else() -> None:
    points = [figures(144, 0.98), figures(32, 0.98), figures(16, 0.98, kind=CONTROL), figures(8, 0.5)]
    choice = choose(points, within(0.0), 0.01)
    assert not choice.only_controls
    assert choice.chosen.figures is points[1]
    assert choice.controls_as_good == (points[2],)
    assert any("right as often: random at layer 4" in line for line in report(points, choice, tolerance=0.01))


def test_a_control_is_chosen_where_the_front_has_nothing_else() -> None:
    points = [figures(144, 0.98), figures(32, 0.98), figures(16, 0.98, kind=CONTROL), figures(8, 0.9, kind=CONTROL)]
    choice = choose(points, within(0.0), 0.01)
    assert choice.only_controls
    assert choice.chosen.figures is points[2]
    assert any("nothing but controls" in line for line in report(points, choice, tolerance=0.01))


def test_a_run_in_which_nothing_was_right_says_so() -> None:
    points = [figures(144, 0.0), figures(16, 0.0)]
    lines = report(points, choose(points, within(0.0), 0.01), tolerance=0.01)
    assert lines[-1].startswith("  note: no point answered a single question as expected")


def questions(*pictures: int) -> list[Question]:
    """Each about the picture of that number."""
    images = [Image.from_bytes(bytes([number])) for number in pictures]
    return [Question(visuals=(image,), text="?", answers=("yes",), options={}) for image in images]


def test_intervals_are_over_pictures_and_differences_over_the_same_ones() -> None:
    asked = questions(*[number // 2 for number in range(200)])  # two questions about each of a hundred pictures
    whole = measured(point("", kind=NO_REDUCTION, method=ReductionMethod.NONE, rater=Rater.NONE), "1111100000" * 20, 144.0)
    same = measured(point("16"), "1111100000" * 20)
    one_less = measured(point("8"), "1111000000" * 20, 8.0)
    of_whole, of_same, of_less = build_figures([whole, same, one_less], Comparison(asked))
    assert of_whole.accuracy.value == of_same.accuracy.value == 0.5
    assert of_same.accuracy.low < 0.45 < 0.55 < of_same.accuracy.high
    # The rule of three: what happened to none of 200 may happen to 3 of 200.
    assert (of_same.difference.low, of_same.difference.value, of_same.difference.high) == (-0.015, 0.0, 0.015)
    assert (of_whole.difference.low, of_whole.difference.high) == (0.0, 0.0)
    assert of_less.difference.value == pytest.approx(-0.1)
    assert -0.16 < of_less.difference.low < -0.1 < of_less.difference.high < -0.04


@pytest.mark.parametrize(("count", "chosen"), [(8, "144"), (290, "144"), (310, "8")])
def test_answers_that_never_differ_show_something_only_if_they_are_many(count: int, chosen: str) -> None:
    # All right at 144 tokens and at 8: of few questions that is luck.
    whole = measured(point("144", kind=NO_REDUCTION), "1" * count, 144.0)
    cheap = measured(point("8"), "1" * count, 8.0)
    comparison = Comparison(questions(*(number % 250 for number in range(count))))
    found = build_figures([whole, cheap], comparison)
    choice = choose(found, lambda one, other: comparison.difference(one.measured, other.measured), 0.01)
    assert choice.chosen.figures.point.budget == chosen


def test_each_question_counts_once_however_many_a_picture_has() -> None:
    asked = questions(0, 0, 0, 1)
    (only,) = build_figures([measured(point("", kind=NO_REDUCTION), "1110")], Comparison(asked))
    assert only.accuracy.value == 0.75
