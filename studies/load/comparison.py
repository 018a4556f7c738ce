"""Configurations side by side in one interleaved run: every round puts the same requests on each, in a shuffled order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from studies.load.album import Album
from studies.load.record import Record
from studies.load.sides import Run, Side, run_on
from studies.load.workload import Ask, Load, images_of
from vscan.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load, with the images that it is about."""

    name: str
    label: str
    load: Load
    album: Album


@dataclass(slots=True)
class Round:
    """What one round of one case came to, by side."""

    order: list[str]
    runs: dict[str, Run]
    others_busy_s: dict[str, float]  # processor time of all other sides' processes, while a side was under load


@dataclass(slots=True)
class Compared:
    """All rounds of one case but those that warmed up."""

    case: Case
    rounds: list[Round] = field(default_factory=list)
    broken_off: bool = False  # before all rounds that were wanted

    def runs(self, side: str) -> list[Run]:
        """Of one side, round after round."""
        return [each.runs[side] for each in self.rounds]


async def compare(
    sides: Mapping[str, Sequence[Side]],
    cases: Sequence[Case],
    *,
    rounds: int,
    warm_ups: int = 1,
    clients: int | None,
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[Compared]:
    """Runs them.

    Args:
        sides: for each case its sides; a side of one case shares services with the side of that name of the others.
        rounds: that count.
        warm_ups: rounds before them that do not.
        clients: of a closed loop; `None`: an open one.
        say: is told of each round that has ended.

    Cancelled when each case has had a round that counts, it gives those that were had, as broken off.

    Raises:
        Unavailable: one of the sides answered nothing of its first round, which warms up.
    """
    order = Random(f"{seed}/order")
    found = [Compared(case) for case in cases]
    try:
        for number in range(warm_ups + rounds):
            for compared in found:
                own = list(sides[compared.case.name])
                order.shuffle(own)
                load = compared.case.load
                asks = load.warming(number) if number < warm_ups else load.asks(number)
                made = await _one_round(compared.case, own, asks, clients)
                if number >= warm_ups:
                    compared.rounds.append(made)
                else:
                    _check_all_answer(compared.case, made)
                say(f"{compared.case.label}: {_named(number, warm_ups, rounds)}")
    except asyncio.CancelledError:
        if not all(compared.rounds for compared in found):
            raise
        for compared in found:
            compared.broken_off = True
    return found


def _check_all_answer(case: Case, made: Round) -> None:
    for side in made.order:
        check_answered(f"{case.label}, {side}", made.runs[side].records)


def check_answered(who: str, records: Sequence[Record]) -> None:
    """Raises Unavailable where nothing at all was answered in a warm-up: a run of minutes would measure failures alone."""
    if records and not any(record.ok for record in records):
        raise Unavailable(f"{who}: none of {len(records)} requests to warm up was answered: {records[0].message}")


async def _one_round(case: Case, sides: Sequence[Side], asks: Sequence[Ask], clients: int | None) -> Round:
    case.album.load(images_of(asks))
    made = Round([side.name for side in sides], {}, {})
    for side in sides:
        idle = [other for other in sides if other is not side]
        before = _busy_s(idle)
        made.runs[side.name] = await run_on(side, asks, clients=clients)
        after = _busy_s(idle)
        made.others_busy_s[side.name] = sum(after[each] - before[each] for each in before.keys() & after.keys())
    return made


def _busy_s(sides: Sequence[Side]) -> dict[tuple[str, str], float]:
    """By side and process, those that are there."""
    return {(side.name, name): seconds for side in sides for name, seconds in side.busy_s().items() if name in side.pids}


def _named(number: int, warm_ups: int, rounds: int) -> str:
    return f"warm-up {number + 1} of {warm_ups}" if number < warm_ups else f"round {number - warm_ups + 1} of {rounds}"
