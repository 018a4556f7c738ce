"""Configurations side by side in one interleaved run: every round puts the same requests on each, in a shuffled order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from studies.load.album import Album
from studies.load.sides import Run, Side, run_on
from studies.load.workload import Load, images_of


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
    """
    order = Random(f"{seed}/order")
    found = [Compared(case) for case in cases]
    for number in range(warm_ups + rounds):
        for compared in found:
            case = compared.case
            own = list(sides[case.name])
            order.shuffle(own)
            made = await _one_round(case, own, number, clients)
            if number >= warm_ups:
                compared.rounds.append(made)
            say(f"{case.label}: {_named(number, warm_ups, rounds)}")
    return found


async def _one_round(case: Case, sides: Sequence[Side], number: int, clients: int | None) -> Round:
    asks = case.load.asks(number)
    case.album.load(images_of(asks))
    made = Round([side.name for side in sides], {}, {})
    for side in sides:
        idle = [other for other in sides if other is not side]
        before = _busy_s(idle)
        made.runs[side.name] = await run_on(side, asks, clients=clients)
        made.others_busy_s[side.name] = _busy_s(idle) - before
    return made


def _busy_s(sides: Sequence[Side]) -> float:
    return sum(seconds for side in sides for name, seconds in side.busy_s().items() if name in side.pids)


def _named(number: int, warm_ups: int, rounds: int) -> str:
    return f"warm-up {number + 1} of {warm_ups}" if number < warm_ups else f"round {number - warm_ups + 1} of {rounds}"
