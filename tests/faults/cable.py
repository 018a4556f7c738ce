"""A cable that is pulled: the encoder is in a network namespace of its own, and packets to it are lost without a word."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

from tests.faults.album import questions
from tests.faults.askers import Askers, undisturbed_answers
from tests.faults.request_log import RequestLog
from tests.faults.row import Row
from tests.support.network_namespace import NetworkNamespace
from tests.support.service_process import ServiceProcess

NAME = "cable_pulled"
_WELL_AGAIN_SECONDS = 60.0
_ALONE: dict[str, Any] = {"redis_url": "", "cache_memory_bytes": 0, "torch_threads": 1, "log_format": "json"}


def obstacle() -> str:
    """Why it cannot be had here; empty if it can."""
    return "" if os.geteuid() == 0 and shutil.which("ip") else "needs root and Debian's package iproute2"


async def run_pulled_cable(folder: Path, lasts_s: float) -> Row:
    """Connections stay as they are: what was lost is sent again by the kernel once the cable is back."""
    with NetworkNamespace() as far:
        bound = _ALONE | {"bind": f"{far.far_address}:0", "insecure": True}
        encoder = ServiceProcess("encoder", folder, bound, run_in=far.command)
        decoder = ServiceProcess("decoder", folder, dict(_ALONE))
        try:
            await asyncio.to_thread(encoder.start)
            decoder.settings |= {"encoder_address": encoder.address, "encoder_insecure": True}
            await asyncio.to_thread(decoder.start)
            await asyncio.to_thread(decoder.wait_ready)
            return await _pulled(far, decoder, lasts_s)
        finally:
            await asyncio.to_thread(decoder.stop)
            await asyncio.to_thread(encoder.stop)


async def _pulled(far: NetworkNamespace, decoder: ServiceProcess, lasts_s: float) -> Row:
    asked, began_s = questions(), time.monotonic()
    undisturbed = await undisturbed_answers(decoder.address, asked)
    log = RequestLog(decoder.log)
    async with Askers([decoder.address], asked, undisturbed) as askers:
        if await askers.all_answered_since(time.monotonic(), _WELL_AGAIN_SECONDS) is None:
            raise RuntimeError("not every client was answered before the cable was pulled")
        far.pull()
        before, pulled_s = len(askers.outcomes), time.monotonic()
        try:
            await asyncio.sleep(lasts_s)
        finally:
            far.plug()
        plugged_s = time.monotonic()
        recovery_s = await askers.all_answered_since(plugged_s, _WELL_AGAIN_SECONDS)
    disturbed = [each for each in askers.outcomes[before:] if each.overlaps(pulled_s, plugged_s) and each.slow(lasts_s / 2)]
    return Row.of(
        NAME,
        "encoder",
        askers.outcomes,
        ends=log.ends(),
        recovery_s=recovery_s,
        signs={"requests_disturbed": float(len(disturbed))},
        took_s=round(time.monotonic() - began_s, 1),
    )
