"""`python -m decoder_service`: runs a decoder, set by `VSCAN_DECODER_…` variables. See docs/configuration.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from vscan.large_imports import large_imports

with large_imports():
    from decoder_service.config import DecoderSettings
    from decoder_service.wiring import serve
    from vscan.rpc.service_main import run_service

SERVICE_NAME = "vscan-decoder"


def main(overrides: Mapping[str, Any] | None = None) -> int:
    """Runs a decoder to its end; `overrides` are settings from a command line. Returns the exit code."""
    return run_service(SERVICE_NAME, DecoderSettings, serve, overrides)


if __name__ == "__main__":
    sys.exit(main())
