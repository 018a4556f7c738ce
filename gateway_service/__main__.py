"""`python -m gateway_service`: runs a gateway, set by `VSCAN_GATEWAY_…` variables. See docs/gateway.md."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from gateway_service.config import GatewaySettings
from gateway_service.wiring import serve
from vscan.rpc.service_main import run_service

SERVICE_NAME = "vscan-gateway"


def main(overrides: Mapping[str, Any] | None = None) -> int:
    """Runs a gateway to its end; `overrides` are settings from a command line. Returns the exit code."""
    # OpenTelemetry's own switch to the stable names of HTTP (`http.server.request.duration`, in seconds).
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    return run_service(SERVICE_NAME, GatewaySettings, serve, overrides)


if __name__ == "__main__":
    sys.exit(main())
