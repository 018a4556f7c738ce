"""`observability/grafana/dashboards/vscan.json`, built with the types that Grafana Labs generate from Grafana's own schemas."""

from __future__ import annotations

import itertools

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, VariableRefresh, VariableSort

from scripts.observability.panels import DATASOURCE
from scripts.observability.rows import ROWS

ALL = ".*"  # also what has no such label: the namespace, outside Kubernetes
# Every service has it from its start on.
_EVERYWHERE = "vscan_process_threads"


def dashboard_json() -> str:
    """The file's text."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(dashboard().build()) + "\n"


def dashboard() -> builders.Dashboard:
    """The whole page."""
    page = (
        builders.Dashboard("vscan-serve").uid("vscan-serve").tags(["vscan"]).editable().tooltip(DashboardCursorSync.CROSSHAIR)
    )
    page.description(
        "Encoders, decoders and gateways of vscan-serve. Made by scripts/observability; docs/operations.md says how to read it."
    )
    page.time("now-3h", "now").refresh("30s").timezone("browser")
    page.with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    page.with_variable(builders.DatasourceVariable("traces").label("Traces").type("tempo"))
    page.with_variable(_choice("namespace", "Namespace", ""))
    page.with_variable(_choice("job", "Service", 'namespace=~"$namespace"'))
    page.with_variable(_choice("instance", "Instance", 'namespace=~"$namespace",job=~"$job"'))
    ids = itertools.count(1)  # known, so that links to a panel stay right
    for title, panels in ROWS.items():
        page.with_row(builders.Row(title).id(next(ids)))
        for panel in panels():
            page.with_panel(panel.id(next(ids)))
    return page


def _choice(name: str, label: str, among: str) -> builders.QueryVariable:
    """All, or some of the values that a label has where the matchers `among` hold."""
    variable = builders.QueryVariable(name).label(label).datasource(DATASOURCE)
    variable.query(f"label_values({_EVERYWHERE}{{{among}}}, {name})")
    variable.multi(True).include_all(True).all_value(ALL).allow_custom_value(False)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
