"""One fault, from the first question to an idle deployment; and all of them, one after the other."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tests.faults.album import Asking, Undisturbed, questions
from tests.faults.askers import Askers, undisturbed_answers
from tests.faults.deployment import Deployment, deployment
from tests.faults.injections import Fault, Held
from tests.faults.outcome import End, Outcome
from tests.faults.request_log import RequestLog
from tests.faults.row import Row
from tests.support.until import until

WELL_AGAIN_SECONDS = 90.0  # a service that was killed reads its model first
_SETTLE_SECONDS = 1.0
_SLOW_SHARE = 0.5  # of the fault's time: a request that took so long has felt it

Report = Callable[[Row], None]


@dataclass(frozen=True, slots=True)
class Scene:
    """A deployment, what is asked of it, and what it answers while nothing is wrong."""

    deployment: Deployment
    questions: Sequence[Asking]
    undisturbed: Undisturbed


async def run_faults(faults: Sequence[Fault], lasts_s: float, report: Report) -> list[Row]:
    """All of them. Those that need movable clocks share a deployment of their own."""
    rows: list[Row] = []
    for movable, some in groupby(faults, key=lambda fault: fault.moves_clocks):
        with tempfile.TemporaryDirectory() as folder:
            async with deployment(Path(folder), movable_clocks=movable) as running:
                asked = questions()
                scene = Scene(running, asked, await undisturbed_answers(running.decoder.address, asked))
                for fault in some:
                    rows.append(await run_fault(fault, scene, lasts_s))
                    report(rows[-1])
    return rows


async def run_fault(fault: Fault, scene: Scene, lasts_s: float) -> Row:
    """Asks, breaks, mends, asks on until every client has been answered again, and looks what is left behind."""
    running = scene.deployment
    began_s, held = time.monotonic(), Held()
    log = RequestLog(running.decoder.log)
    server = f"127.0.0.1:{running.to_decoder.port}" if fault.by_proxy else running.decoder.address
    askers = Askers([server], scene.questions, scene.undisturbed)
    async with askers:
        if await askers.all_answered_since(began_s, WELL_AGAIN_SECONDS) is None:
            raise RuntimeError("not every client was answered before anything was wrong")
        felt_before = await _felt_by_services(fault, running)
        broken_s = time.monotonic()
        async with fault.inject(running, held, lasts_s):
            pass
        mended_s = time.monotonic()
        recovery_s = await askers.all_answered_since(mended_s, WELL_AGAIN_SECONDS)
        await asyncio.sleep(_SETTLE_SECONDS)
        held.signs |= await _felt(fault, running, askers.outcomes, (broken_s, mended_s), felt_before)
    left_over = await _left_over(running)
    return Row.of(
        fault.name,
        fault.component,
        askers.outcomes,
        ends=log.ends(),
        log_is_whole=not fault.loses_log,
        recovery_s=recovery_s,
        signs={name: float(value) for name, value in held.signs.items()},
        left_over=left_over,
        took_s=round(time.monotonic() - began_s, 1),
    )


async def _felt_by_services(fault: Fault, running: Deployment) -> float:
    return await running.redis_errors() if fault.component == "redis" and not fault.moves_clocks else 0.0


async def _felt(
    fault: Fault, running: Deployment, outcomes: Sequence[Outcome], broken: tuple[float, float], before: float
) -> Mapping[str, float]:
    """What those beside the broken component noticed."""
    if fault.component == "collector" and not fault.moves_clocks:
        return {"spans_afterwards": await _spans_come(running)}
    if fault.moves_clocks or (fault.name == "disk_full" and fault.component != "redis"):
        return {"answered_meanwhile": sum(each.end is End.ANSWERED and each.overlaps(*broken) for each in outcomes)}
    if fault.component == "redis":
        return {"redis_errors": await running.redis_errors() - before}
    slow_s = _SLOW_SHARE * (broken[1] - broken[0])
    return {"requests_disturbed": sum(each.overlaps(*broken) and _disturbed(each, slow_s) for each in outcomes)}


def _disturbed(outcome: Outcome, slow_s: float) -> bool:
    return outcome.end is not End.ANSWERED or outcome.attempts > 1 or outcome.ended_s - outcome.begun_s > slow_s


async def _spans_come(running: Deployment) -> float:
    before = running.collector.state()["spans"]
    await until(lambda: running.collector.state()["spans"] > before, what="spans reach the collector again")
    return float(running.collector.state()["spans"])


async def _left_over(running: Deployment) -> str:
    try:
        await running.until_idle()
    except AssertionError as error:
        return str(error)
    return ""
