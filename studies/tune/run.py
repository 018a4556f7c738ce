"""Measures the points of a grid that are not measured yet, deployment by deployment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from time import monotonic

from studies.tune.asking import Asker
from studies.tune.deployed import Deployed
from studies.tune.journal import Journal
from studies.tune.point import Deployment, Point, in_order, restarts
from vscan.errors import StartupError
from vscan_client import AsyncClient
from vscan_client.cli.connection import patient_retry
from vscan_client.cli.progress import Shown, progress
from vscan_client.options import Timeout

_TRIED_QUESTIONS = 16  # before it is said how long the run will take
_ANSWER_TIMEOUT_S = 600.0


class Run:
    """One run over services that are up.

    Args:
        say: told what a person should know while it runs.
    """

    def __init__(self, deployed: Deployed, journal: Journal, asker: Asker, say: Callable[[str], None]) -> None:
        self._deployed = deployed
        self._journal = journal
        self._asker = asker
        self._say = say
        # What a service refused to start with, and why: it is not asked again.
        self._refused: dict[tuple[str, tuple[int, ...]], str] = {}

    def measure(self, grid: Sequence[Point]) -> None:
        """Measures what is left of it; what a service refuses is left out and said.

        Raises:
            VScanError: a question failed.
        """
        left = in_order([point for point in grid if self._journal.get(point) is None], self._deployed.known.reference)
        if not left:
            return
        self._say(self._announced(grid, left))
        with progress("tuning", len(left) * self._asker.asks_per_point) as shown:
            asker = replace(self._asker, advance=shown.advance)
            for deployment, points in groupby(left, key=lambda point: point.deployment):
                self._measure_at(deployment, list(points), asker, shown)

    def _measure_at(self, deployment: Deployment, points: Sequence[Point], asker: Asker, shown: Shown) -> None:
        refusal = self._move_to(deployment)
        if refusal is None:
            asyncio.run(self._ask(points, asker))
            return
        shown.say(f"{_counted(len(points), 'point')} left out: {refusal}")
        for _ in range(len(points) * asker.asks_per_point):
            shown.advance()

    def _move_to(self, deployment: Deployment) -> str | None:
        """Why a service does not start so, or None."""
        parts: dict[str, tuple[int, ...]] = {"encoder": deployment.encoder, "decoder": deployment.prune_layers}
        for part in parts.items():
            if part in self._refused:
                return self._refused[part]
        try:
            self._deployed.move_to(deployment)
        except StartupError as error:
            name = str(error).partition(":")[0]
            if name not in parts:
                raise
            self._refused[name, parts[name]] = str(error)
            return str(error)
        return None

    async def _ask(self, points: Sequence[Point], asker: Asker) -> None:
        async with self._client() as client:
            for point in points:
                self._journal.add(await asker.measure(client, point))

    def _client(self) -> AsyncClient:
        retry = patient_retry(self._asker.concurrency)
        return AsyncClient(server=self._deployed.server, retry=retry, timeout=Timeout(total=_ANSWER_TIMEOUT_S))

    def _announced(self, grid: Sequence[Point], left: Sequence[Point]) -> str:
        before = "" if len(left) == len(grid) else f" ({len(grid) - len(left)} of {len(grid)} points were measured before)"
        count = restarts(left, self._deployed.known.reference)
        controls = sum(point.is_control for point in left)
        asked = len(self._asker.questions)
        seconds = len(left) * self._asker.asks_per_point * self._seconds_each(left[0]) + count * self._deployed.start_s
        return (
            f"{_counted(len(left), 'point')}{before}, {controls} of them controls, {asked} questions each; "
            f"{_counted(count, 'restart')} of a service. At most about {_spoken(seconds)}. Ctrl-C keeps what was measured"
        )

    def _seconds_each(self, point: Point) -> float:
        """Of a question, with and without reduction in turn, once the services are warm. Most points are cheaper than that."""

        async def ask() -> float:
            few = replace(self._asker, questions=self._asker.questions[:_TRIED_QUESTIONS], advance=lambda: None)
            ways = (few.baseline, point)
            async with self._client() as client:
                await few.ask_all(client, few.baseline)
                began = monotonic()
                for way in ways:
                    await few.ask_all(client, way)
                return (monotonic() - began) / (len(ways) * len(few.questions))

        return asyncio.run(ask())


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _spoken(seconds: float) -> str:
    """`45 s`, `7 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
