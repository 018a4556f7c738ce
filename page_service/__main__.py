"""`python -m page_service`: runs a page, set by `VSCAN_PAGE_…` variables. See docs/page.md."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping
from typing import Any

from page_service.config import PageSettings
from page_service.server import serve
from vscan.config import load_settings, spell_out
from vscan.errors import VScanError
from vscan.rpc.hard_limit import HardLimit
from vscan.rpc.service_main import end_at_once
from vscan.secret_files import warn_of_open_files
from vscan.telemetry.logs import configure_logging
from vscan.telemetry.setup import setup_tracing


def main(overrides: Mapping[str, Any] | None = None) -> int:
    """Runs a page to its end; `overrides` are settings from a command line. Returns the exit code."""
    signal.signal(signal.SIGTERM, end_at_once)  # until the server drains instead
    try:
        settings = load_settings(PageSettings, overrides)
        configure_logging(stream=sys.stderr)
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # any browser could fill the log with its warnings
        warn_of_open_files(settings)
        telemetry = setup_tracing("vscan-page", otlp_endpoint=settings.otlp_endpoint)
        try:
            asyncio.run(serve(settings, telemetry, HardLimit().start))
        finally:
            telemetry.shutdown()
    except VScanError as error:
        print(f"vscan-page: {' '.join(spell_out(error.message, PageSettings, overrides).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
