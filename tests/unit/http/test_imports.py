"""Who serves HTTP needs an extra; all others must work without."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
_SERVING = ("gateway_service", "page_service", "vscan/http")
_SHIPPED = ("vscan", "client", "encoder_service", "decoder_service", "embedded_model", "studies")


def test_only_the_gateway_and_the_page_import_it() -> None:
    files = [path for folder in _SHIPPED for path in (ROOT / folder).rglob("*.py")]
    others = [path for path in files if not path.relative_to(ROOT).as_posix().startswith(_SERVING)]
    assert len(others) > 200
    assert not [path for path in others if re.search(r"vscan\.http\b|from vscan import .*\bhttp\b", path.read_text())]


@pytest.mark.parametrize(
    ("service", "missing"),
    [
        ("page_service", ("prometheus_client", "opentelemetry.instrumentation.asgi", "gateway_service")),
        ("gateway_service", ("python_multipart", "multipart", "page_service")),
    ],
)
def test_neither_needs_the_others_extra(service: str, missing: tuple[str, ...]) -> None:
    none = ("torch", "transformers", "numpy", "PIL", "av", "redis", "grpc_health", *missing)
    program = f"import sys; sys.modules.update(dict.fromkeys({none!r})); import {service}.__main__, {service}.config"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
