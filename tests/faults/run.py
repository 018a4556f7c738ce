"""One fault, from the first question to an idle deployment; and all of them, one after the other."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
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
from tests.faults.row import Row, frequent_messages
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
    return _row(fault, askers.outcomes, log.ends(), held, recovery_s, left_over, time.monotonic() - began_s)


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


def _row(
    fault: Fault,
    outcomes: Sequence[Outcome],
    ends: Counter[str],
    held: Held,
    recovery_s: float | None,
    left_over: str,
    took_s: float,
) -> Row:
    by_end: Mapping[End, int] = Counter(each.end for each in outcomes)
    answered = [each for each in outcomes if each.end is End.ANSWERED]
    return Row(
        fault=fault.name,
        component=fault.component,
        requests=len(outcomes),
        answered=len(answered),
        equal=sum(each.equal for each in answered),
        typed_errors=by_end.get(End.TYPED_ERROR, 0),
        lost=sum(each.lost for each in outcomes),
        duplicated=sum(each.doubled for each in outcomes) + sum(times > 1 for times in ends.values()),
        recovery_s=None if recovery_s is None else round(recovery_s, 2),
        retries=sum(each.attempts - 1 for each in outcomes if each.attempts),
        errors=dict(Counter(each.error for each in outcomes if each.error)),
        messages=frequent_messages(outcomes),
        signs={name: float(value) for name, value in held.signs.items()},
        took_hold=held.took_hold,
        not_in_log=0 if fault.loses_log else sum(each.request_id not in ends for each in answered),
        left_over=left_over,
        took_s=round(took_s, 1),
    )
