"""The dashboard is one that can be read: every panel says what it shows, in which unit, and lies beside the others."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from scripts.observability.promql import names_in
from scripts.observability.rows import ROWS
from scripts.observability.sources import DASHBOARD, OBSERVABILITY, recorded
from scripts.protos import ROOT

CONTENT: dict[str, Any] = json.loads(DASHBOARD.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in CONTENT["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in CONTENT["templating"]["list"]}


def test_every_row_is_there_with_its_panels() -> None:
    rows = [panel["title"] for panel in CONTENT["panels"] if panel["type"] == "row"]
    assert rows == list(ROWS)
    assert len(PANELS) == sum(len(make()) for make in ROWS.values())
    assert len({panel["id"] for panel in CONTENT["panels"]}) == len(CONTENT["panels"])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    options = panel.get("fieldConfig", {}).get("defaults", {}) | panel.get("options", {}).get("yAxis", {})
    assert options["unit"]
    references = [target["refId"] for target in panel["targets"]]
    assert references == sorted(set(references))


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_follows_the_variables(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        wanted = {"namespace"} if _reads_rules(target["expr"]) else {"namespace", "job", "instance"}
        for selection in names_in(target["expr"]).selections:
            assert wanted <= selection.labels, target["expr"]


def _reads_rules(text: str) -> bool:
    return names_in(text).metrics <= {*recorded(), "ALERTS"}


def test_panels_do_not_lie_on_each_other() -> None:
    cells = [
        {
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        }
        for panel in CONTENT["panels"]
    ]
    assert all(not one & other for one, other in combinations(cells, 2))
    assert max(x for taken in cells for x, _ in taken) < 24


def test_its_variables_are_those_that_it_uses() -> None:
    assert set(VARIABLES) == {"datasource", "traces", "namespace", "job", "instance"}
    assert VARIABLES["traces"]["query"] == "tempo"
    for name in ("namespace", "job", "instance"):
        assert VARIABLES[name]["allValue"] == ".*"  # what has no namespace is there too
        assert f"${name}" in DASHBOARD.read_text()
    assert "${traces}" in DASHBOARD.read_text()


def test_its_objectives_are_those_of_the_alerts() -> None:
    alerts = (OBSERVABILITY / "prometheus" / "alerts.rules.yml").read_text()
    for budget, about in (("0.05", "first_tokens_late"), ("0.005", "answers_failed")):
        assert f"vscan_{about}:ratio_rate1h > 14.4 * {budget}\n" in alerts
        burns = [target["expr"] for panel in PANELS for target in panel["targets"] if f"{about}:ratio_rate" in target["expr"]]
        assert {text.rpartition(" / ")[2] for text in burns if " / " in text} == {budget}


def test_the_page_names_panels_that_there_are() -> None:
    titles, row = set[str](), ""
    for panel in CONTENT["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        titles |= {panel["title"], f"{row} / {panel['title']}"}
    page = (ROOT / "docs" / "operations.md").read_text().partition("## What to look at")[2]
    named = {" ".join(name.split()) for name in re.findall(r"(?<![*\w])\*([^*|]+)\*(?![*\w])", page)}
    assert {"Decoder / KV pages", "First token"} <= named
    assert named - titles == {"Targets", "running"}  # a page of Prometheus', a series


def test_provisioning_gives_it_its_data_sources() -> None:
    folder = OBSERVABILITY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "vscan.yaml").read_text())["datasources"]
    assert {source["type"] for source in sources} == {"prometheus", "tempo"}
    (destination,) = sources[0]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["datasourceUid"] == sources[1]["uid"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "vscan.yaml").read_text())["providers"]
    assert f"`{provider['options']['path']}`" in (OBSERVABILITY / "README.md").read_text()
