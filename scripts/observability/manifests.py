"""The files of `k8s/` that hold what lies in `observability/`; the kustomizations beside them list them."""

from __future__ import annotations

from typing import Any

import yaml

from scripts.protos import ROOT

OBSERVABILITY = ROOT / "observability"
RULES = ("recording.rules.yml", "alerts.rules.yml")
_PART_OF = {"app.kubernetes.io/part-of": "vscan"}
_WIDTH = 128


def prometheus_rule() -> str:
    """The rules for the Prometheus Operator: the same groups."""
    return _manifest(
        "observability/prometheus",
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "vscan", "labels": dict(_PART_OF)},
            "spec": {"groups": [group for name in RULES for group in _groups(name)]},
        },
    )


def grafana_dashboard() -> str:
    """The dashboard for Grafana's sidecar, which looks for that label."""
    dashboard = (OBSERVABILITY / "grafana" / "dashboards" / "vscan.json").read_text()
    labels = {**_PART_OF, "grafana_dashboard": "1"}
    return _manifest("observability/grafana", _config_map("vscan-dashboard", labels, {"vscan.json": dashboard}))


def otel_collector() -> str:
    """The collector's configuration."""
    config = (OBSERVABILITY / "otel-collector" / "config.yaml").read_text()
    labels = {"app.kubernetes.io/name": "otel-collector", **_PART_OF}
    return _manifest("observability/otel-collector", _config_map("otel-collector", labels, {"config.yaml": config}))


def _groups(name: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = yaml.safe_load((OBSERVABILITY / "prometheus" / name).read_text())["groups"]
    return groups


def _config_map(name: str, labels: dict[str, str], data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data}


def _manifest(source: str, resource: dict[str, Any]) -> str:
    head = f"# Generated from `{source}` by `make docs`. A test compares; edit the source.\n"
    return head + yaml.dump(resource, Dumper=_Dumper, sort_keys=False, width=_WIDTH, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
