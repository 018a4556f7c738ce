"""Writes what is generated: pages of `docs/`, a table of README.md, the dashboard, and what `k8s/` has of `observability/`.

python -m scripts.generate_docs      which is `make docs`
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from scripts.observability.dashboard import dashboard_json
from scripts.observability.manifests import grafana_dashboard, otel_collector, prometheus_rule
from scripts.pages.api import api_page
from scripts.pages.cache import cache_page
from scripts.pages.capacity import capacity_page
from scripts.pages.configuration import configuration_page
from scripts.pages.encoder import encoder_page
from scripts.pages.errors import errors_page
from scripts.pages.evaluation import evaluation_page, readme_page
from scripts.pages.load import load_page
from scripts.pages.metrics import metrics_page
from scripts.pages.reliability import reliability_page
from scripts.pages.security import security_page
from scripts.protos import ROOT

PAGES: dict[str, Callable[[], str]] = {
    "docs/api.md": api_page,
    "docs/cache.md": cache_page,
    "docs/capacity.md": capacity_page,
    "docs/configuration.md": configuration_page,
    "docs/encoder.md": encoder_page,
    "docs/errors.md": errors_page,
    "docs/evaluation.md": evaluation_page,
    "docs/load.md": load_page,
    "docs/metrics.md": metrics_page,
    "docs/reliability.md": reliability_page,
    "docs/security.md": security_page,
    "README.md": readme_page,
    "observability/grafana/dashboards/vscan.json": dashboard_json,
    "k8s/components/monitoring/grafana-dashboard.yaml": grafana_dashboard,  # of the file above, so after it
    "k8s/components/monitoring/prometheus-rule.yaml": prometheus_rule,
    "k8s/base/otel-collector/configmap.yaml": otel_collector,
}


def main() -> int:
    """Returns the exit status."""
    for name, make in PAGES.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(make())
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
