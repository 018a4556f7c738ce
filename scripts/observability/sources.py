"""The expressions of rules, alerts and dashboard, each with the place where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from scripts.protos import ROOT

OBSERVABILITY = ROOT / "observability"
PROMETHEUS = OBSERVABILITY / "prometheus"
DASHBOARD = OBSERVABILITY / "grafana" / "dashboards" / "vscan.json"
RULE_FILES = ("recording.rules.yml", "alerts.rules.yml")
# Labels that the parts of a recorded name's level stand for.
LEVELS: Mapping[str, str] = {
    "code": "http_response_status_code",
    "namespace": "namespace",
    "instance": "instance",
    "job": "job",
    "media": "vscan_media",
    "method": "rpc_method",
    "place": "vscan_place",
    "stage": "vscan_stage",
    "status": "vscan_status",
    "tier": "vscan_cache_tier",
}
_LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")


@dataclass(frozen=True, slots=True)
class Expression:
    """One expression. `place`: where it stands, for people."""

    place: str
    text: str


def groups() -> list[dict[str, Any]]:
    """All groups of rules, as in their files, the recording ones first."""
    files = (yaml.safe_load((PROMETHEUS / name).read_text()) for name in RULE_FILES)
    return [group for content in files for group in content["groups"]]


def recorded() -> dict[str, str]:
    """Expressions by the names under which they are recorded."""
    return {rule["record"]: rule["expr"] for group in groups() for rule in group["rules"] if "record" in rule}


def alerts() -> list[dict[str, Any]]:
    """All alerts, as in their file."""
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def panels() -> list[Expression]:
    """Every query of the dashboard's panels, its variables as they stand there."""
    dashboard = json.loads(DASHBOARD.read_text())
    return [
        Expression(f"panel {panel['title']!r}, {target['refId']}", target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]


def choices() -> list[Expression]:
    """What the dashboard's variables choose among, as `count by (label) (selector)`."""
    queries = [(one["name"], one["query"]) for one in json.loads(DASHBOARD.read_text())["templating"]["list"]]
    found = [(name, _LABEL_VALUES.fullmatch(query)) for name, query in queries]
    return [
        Expression(f"variable {name}", f"count by ({match['label']}) ({match['selector']})")
        for name, match in found
        if match is not None
    ]


def all_expressions() -> list[Expression]:
    """Those of rules, alerts, panels and variables."""
    rules = [Expression(f"rule {name}", text) for name, text in recorded().items()]
    causes = [Expression(f"alert {alert['alert']}", alert["expr"]) for alert in alerts()]
    return [*rules, *causes, *panels(), *choices()]


def level_labels(name: str) -> frozenset[str]:
    """The labels that a recorded name says its series have. Raises KeyError: its level has a part that nobody knows."""
    return frozenset(LEVELS[part] for part in name.partition(":")[0].split("_"))
