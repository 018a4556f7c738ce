"""What prometheus-adapter would ask Prometheus, by the values that `k8s/` has for it."""

from __future__ import annotations

import re

import yaml

from tests.support.manifests.rendering import K8S

VALUES = K8S / "components" / "autoscaling-hpa" / "prometheus-adapter-values.yaml"


def adapted_metrics() -> dict[str, tuple[str, str]]:
    """Of each metric that it makes the series, and the query with its holes filled, for pods of the namespace `vscan`."""
    made = {}
    for rule in yaml.safe_load(VALUES.read_text())["rules"]["custom"]:
        series = rule["seriesQuery"].partition("{")[0]
        if not re.fullmatch(rule["name"]["matches"], series):
            raise ValueError(f"the rule for {series} renames another one")
        query = rule["metricsQuery"].replace("<<.Series>>", series).replace("<<.LabelMatchers>>", 'namespace="vscan"')
        made[rule["name"]["as"]] = (series, query.replace("<<.GroupBy>>", "pod"))
    return made
