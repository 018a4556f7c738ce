"""`python -m encoder_service`: runs an encoder, set by `VSCAN_ENCODER_…` variables. See docs/configuration.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from vscan.large_imports import large_imports

with large_imports():
    from encoder_service.config import EncoderSettings
    from encoder_service.wiring import serve
    from vscan.rpc.service_main import run_service

SERVICE_NAME = "vscan-encoder"


def main(overrides: Mapping[str, Any] | None = None) -> int:
    """Runs an encoder to its end; `overrides` are settings from a command line. Returns the exit code."""
    return run_service(SERVICE_NAME, EncoderSettings, serve, overrides)


if __name__ == "__main__":
    sys.exit(main())
