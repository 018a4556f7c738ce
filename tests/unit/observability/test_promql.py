"""Names are read out of expressions as Prometheus would read them."""

import pytest

from scripts.observability.promql import Matcher, Selection, names_in

Wanted = tuple[str, frozenset[str]]


def selection(metric: str, *labels: str) -> Wanted:
    return metric, frozenset(labels)


@pytest.mark.parametrize(
    ("expression", "selections", "labels"),
    [
        ("up", [selection("up")], set()),
        ("up == bool 1", [selection("up")], set()),
        ('a{b="c",d!~"e|f",}', [selection("a", "b", "d")], set()),
        ("sum(a)", [selection("a")], set()),
        ("sum by (x, y) (a) / on (x) group_left (z) b", [selection("a"), selection("b")], {"x", "y", "z"}),
        ("sum(a) without (x)", [selection("a")], {"x"}),
        ("SUM BY (x) (a)", [selection("a")], {"x"}),
        ("rate(a_total[5m])", [selection("a_total")], set()),
        ("max_over_time(rate(a[5m])[1h30m:30s] offset 1d)", [selection("a")], set()),
        ("level:metric:rate5m offset 2h", [selection("level:metric:rate5m")], set()),
        ('{__name__="a",b="c"}', [selection("a", "b")], set()),
        ('{b="c"}', [selection("", "b")], set()),
        ('a{b="not_a_metric{c=1} or d"}', [selection("a", "b")], set()),
        (r"""a{b="say \"x\" ", c='y', d=`z`}""", [selection("a", "b", "c", "d")], set()),
        ("a # or b\n  and c", [selection("a"), selection("c")], set()),
        ("histogram_quantile(0.99, sum by (le) (rate(a_bucket[$__rate_interval])))", [selection("a_bucket")], {"le"}),
        ('a{b=~"$c",d=~"${e:regex}"}[$__range]', [selection("a", "b", "d")], set()),
        ("a > 1e3 and b < -.5 or c > 0x1F unless d != Inf", [selection(x) for x in "abcd"], set()),
        ("sum + count", [selection("sum"), selection("count")], set()),  # metrics may be called like aggregations
        ("vector(0) or absent(a)", [selection("a")], set()),
        ("count(a) by (b) > 10m", [selection("a")], {"b"}),
        ("a @ 1609746000", [selection("a")], set()),
        ("a @ end()", [selection("a")], set()),
    ],
)
def test_what_an_expression_names(expression: str, selections: list[Wanted], labels: set[str]) -> None:
    names = names_in(expression)
    assert [(one.metric, one.labels) for one in names.selections] == selections
    assert names.labels == labels


def test_conditions_are_read_with_their_values() -> None:
    (found,) = names_in("""a{b="c",d!~'e|f',g!=`h`}""").selections
    assert found == Selection("a", (Matcher("b", "=", "c"), Matcher("d", "!~", "e|f"), Matcher("g", "!=", "h")))


@pytest.mark.parametrize("expression", ["a ; b", "a{b=", "sum by (a", 'a{b="c}'])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError):
        names_in(expression)
