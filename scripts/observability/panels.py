"""Panels of the dashboard, with what all of them have in common.

In an expression `<here>` stands for what the dashboard's variables choose among series that services serve, `<there>` for what
they choose among recorded ones, which have only a namespace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, FieldColorModeId, Threshold, ThresholdsMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HERE = 'namespace=~"$namespace",job=~"$job",instance=~"$instance"'
THERE = 'namespace=~"$namespace"'
WIDTH, HEIGHT = 8, 8  # of 24 columns; a third of a row
STAT_WIDTH, STAT_HEIGHT = 4, 4
GREEN, YELLOW, RED = "green", "yellow", "red"

AnyPanel = timeseries.Panel | stat.Panel | heatmap.Panel
# Names of Grafana's units.
SECONDS, MS, BYTES, SHARE, COUNT = "s", "ms", "bytes", "percentunit", "short"
REQUESTS_PER_SECOND, PER_SECOND = "reqps", "ops"


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and the name of its series, labels as `{{label}}`."""

    expression: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a value is yellow and red. `falling`: red below, green above."""

    yellow: float
    red: float
    falling: bool = False

    def steps(self) -> list[Threshold]:
        """Grafana's: the first has no value and holds below all others."""
        low, high = (self.red, self.yellow) if self.falling else (self.yellow, self.red)
        first, last = (RED, GREEN) if self.falling else (GREEN, RED)
        return [Threshold(None, first), Threshold(low, YELLOW), Threshold(high, last)]


def series(
    title: str,
    description: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    stacked: bool = False,
    most: float | None = None,
    limits: Limits | None = None,
) -> timeseries.Panel:
    """Lines over time. `queries`: expressions by the names of their series."""
    panel = timeseries.Panel().title(title).description(description).datasource(DATASOURCE).unit(unit).min(0)
    panel.span(WIDTH).height(HEIGHT).targets(_targets([Query(text, legend) for legend, text in queries.items()]))
    panel.line_width(1).fill_opacity(30 if stacked else 5)
    panel.legend(
        common_builders.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .calcs([])
    )
    panel.tooltip(common_builders.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(StackingMode.NORMAL))
    if most is not None:
        panel.max(most)
    if limits is not None:
        panel.thresholds(_thresholds(limits))
        panel.thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    return panel


def number(title: str, description: str, unit: str, expression: str, *, limits: Limits | None = None) -> stat.Panel:
    """One value, coloured by its limits, with its course behind it."""
    panel = stat.Panel().title(title).description(description).datasource(DATASOURCE).unit(unit)
    panel.span(STAT_WIDTH).height(STAT_HEIGHT).targets(_targets([Query(expression)]))
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
    panel.graph_mode(BigValueGraphMode.AREA).color_mode(BigValueColorMode.VALUE).no_value("no traffic")
    if limits is not None:
        panel.thresholds(_thresholds(limits)).color_scheme(builders.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    return panel


def distribution(title: str, description: str, unit: str, expression: str) -> heatmap.Panel:
    """A histogram over time. `expression`: its buckets by `le`. Shows exemplars where there are any (of metrics over OTLP)."""
    panel = heatmap.Panel().title(title).description(description).datasource(DATASOURCE)
    query = _target(0, Query(expression, "{{le}}")).format(PromQueryFormat.HEATMAP).exemplar(True)
    panel.span(WIDTH).height(HEIGHT).targets([query]).calculate(False)
    panel.y_axis(heatmap.YAxisConfig().unit(unit))
    return panel


def traces_link(title: str, traceql: str) -> builders.DashboardLink:
    """Opens the traces that fit in the data source chosen for them, over the time that the dashboard shows."""
    pane = (
        '{"t":{"datasource":"${traces}","queries":[{"refId":"A","queryType":"traceql","query":"%s"}],'
        '"range":{"from":"${__from}","to":"${__to}"}}}'
    )
    text = quote(pane % traceql.replace('"', r"\""), safe="${}_:")
    return builders.DashboardLink(title).url(f"/explore?schemaVersion=1&panes={text}").target_blank(True)


def filled(expression: str) -> str:
    """With the variables' selections."""
    return expression.replace("<here>", HERE).replace("<there>", THERE)


def _targets(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    return [_target(index, query) for index, query in enumerate(queries)]


def _target(index: int, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(filled(query.expression)).ref_id(chr(ord("A") + index)).range()
    return target.legend_format(query.legend).editor_mode(QueryEditorMode.CODE).datasource(DATASOURCE)


def _thresholds(limits: Limits) -> builders.ThresholdsConfig:
    return builders.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(limits.steps())
