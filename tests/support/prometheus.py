"""A process' own figures, as Prometheus would read them."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Figures:
    """One reading: name, labels and value of each sample."""

    samples: Sequence[tuple[str, dict[str, str], float]]

    def total(self, name: str, **labels: str) -> float:
        """The sum over all samples of that name with these labels; 0 where there are none."""
        return sum(value for sample, having, value in self.samples if sample == name and labels.items() <= having.items())


def read_figures(port: int) -> Figures:
    """What `metrics_bind` serves on a loopback port. Raises OSError where nothing answers within half a minute."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        text = page.read().decode()
    families = text_string_to_metric_families(text)
    return Figures([(sample.name, dict(sample.labels), sample.value) for family in families for sample in family.samples])
