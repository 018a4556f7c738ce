"""Lines of families are told apart, and are the same in every study."""

from studies.language.groups import ALL
from studies.language.strokes import MOST, family_strokes


def test_no_two_lines_are_alike_and_further_families_change_none() -> None:
    families = [ALL, *(f"family {number}" for number in range(1, MOST + 3))]
    strokes = family_strokes(families, points=8)
    assert len({(each["color"], each["marker"]) for each in strokes.values()}) == len(strokes) == MOST
    assert family_strokes(families[:3], points=8) == {family: strokes[family] for family in families[:3]}
