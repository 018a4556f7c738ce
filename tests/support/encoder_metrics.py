"""What encoders count of their own work."""

from __future__ import annotations

import re
import urllib.request


def images_encoded(metrics_port: int) -> int:
    """Images that went through the vision transformer of an encoder process, its warm-up's included."""
    return _sum_of("vscan_encoder_batch_images_sum", metrics_port)


def images_waiting(metrics_port: int) -> int:
    """Images that an encoder process has admitted, and that are in no batch yet."""
    return _sum_of("vscan_encoder_waiting", metrics_port)


def _sum_of(metric: str, metrics_port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as page:
        text = page.read().decode()
    return sum(int(float(value)) for value in re.findall(rf"^{metric}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE))
