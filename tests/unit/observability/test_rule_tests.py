"""Every alert has a test in which it fires, and its groups are evaluated in a known order."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from scripts.observability.sources import OBSERVABILITY, PROMETHEUS, alerts, groups

FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))
TESTS: list[dict[str, Any]] = [yaml.safe_load(path.read_text()) for path in FILES]
EXPECTED = [check for content in TESTS for test in content["tests"] for check in test.get("alert_rule_test", [])]


@pytest.mark.parametrize("name", sorted({alert["alert"] for alert in alerts()}))
def test_an_alert_is_seen_firing(name: str) -> None:
    severities = {alert["labels"]["severity"] for alert in alerts() if alert["alert"] == name}
    fired = {
        found["exp_labels"]["severity"] for check in EXPECTED if check["alertname"] == name for found in check["exp_alerts"]
    }
    assert fired == severities


def test_what_does_not_fire_is_tested_too() -> None:
    silent = {check["alertname"] for check in EXPECTED if not check["exp_alerts"]}
    pages = {alert["alert"] for alert in alerts() if alert["labels"]["severity"] == "page"}
    assert pages <= silent


@pytest.mark.parametrize("content", TESTS, ids=[path.stem for path in FILES])
def test_groups_are_evaluated_in_order(content: dict[str, Any]) -> None:
    """Without this promtool takes them in an order of its own, a new one each time."""
    assert content["group_eval_order"] == [group["name"] for group in groups()]


def test_the_readme_names_the_tests() -> None:
    readme = (OBSERVABILITY / "README.md").read_text()
    assert all(f"`prometheus/tests/{path.name}`" in readme for path in FILES)
