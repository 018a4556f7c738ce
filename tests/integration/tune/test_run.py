"""What a run asks of a deployment over gRPC: what is left of a grid, in the way of each point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studies.tune.asking import Asker
from studies.tune.cost import LanguageShape
from studies.tune.grid import Known
from studies.tune.journal import Journal
from studies.tune.point import Deployment
from studies.tune.questions import Question
from studies.tune.run import Run
from tests.support.client_decoder import ScriptedDeployment, serving
from tests.unit.tune.made import HERE, at, measured, point
from vscan.errors import StartupError
from vscan_client.content import Image

KNOWN = Known(layers=8, deep_layer=6, tokens_per_tile=144, shallow_layer=2, window=6, prune_layers=(4,))
SHAPE = LanguageShape(layers=8, width=4, mlp_width=8, heads=2, kv_heads=2, head_width=2)
QUESTIONS = [
    Question(visuals=(Image.from_bytes(bytes([number])),), text=f"q{number}", answers=(f"1 image(s): q{number}",), options={})
    for number in range(16)
]
BASELINE = point("", kind="no reduction")


class Deployed:
    """Services that were started elsewhere; those of the settings in `refuses` do not start."""

    known, start_s = KNOWN, 1.0

    def __init__(self, server: str, refuses: tuple[Deployment, ...] = ()) -> None:
        self.server, self._refuses = server, refuses
        self.moves: list[Deployment] = []

    def move_to(self, deployment: Deployment) -> None:
        self.moves.append(deployment)
        if deployment in self._refuses:
            raise StartupError("encoder: window: too wide")


@pytest.fixture
def asked() -> Iterator[tuple[ScriptedDeployment, str]]:
    deployment = ScriptedDeployment()
    with serving(deployment) as address:
        yield deployment, address


def run(deployed: Any, journal: Journal, said: list[str]) -> Run:
    asker = Asker(questions=QUESTIONS, baseline=BASELINE, shape=SHAPE, max_new_tokens=8, concurrency=4, advance=lambda: None)
    return Run(deployed, journal, asker, said.append)


def test_what_was_measured_before_is_not_asked_again(asked: tuple[ScriptedDeployment, str], tmp_path: Path) -> None:
    deployment, address = asked
    before, left = measured(point("8"), "1" * 16), replace(point("9"), keep=0.5)
    said: list[str] = []
    with Journal(tmp_path, {"model": "m"}, resume=False) as journal:
        journal.add(before)
        deployed = Deployed(address)
        run(deployed, journal, said).measure([before.point, left])
        found = journal.get(left)
    assert found is not None
    assert found.right == (True,) * 16
    assert found.prefill_ratios == (1.0,) * 8  # the scripted prefill takes as long for all
    assert (journal.get(before.point), deployed.moves) == (before, [HERE])
    assert said[0].startswith("1 point (1 of 2 points were measured before), 0 of them controls, 16 questions each; 0 restarts")
    asked_of_point = [request for request in deployment.requests if request.reduction.budget.tokens_per_tile == 9]
    assert {tuple(budget.ratio for budget in request.prune.budgets) for request in asked_of_point} == {(0.5,)}


def test_timed_pairs_take_turns_to_be_first(asked: tuple[ScriptedDeployment, str], tmp_path: Path) -> None:
    deployment, address = asked
    with Journal(tmp_path, {"model": "m"}, resume=False) as journal:
        run(Deployed(address), journal, []).measure([point("9")])
    timed = deployment.requests[-16:]
    numbers = [request.chat.messages[-1].parts[-1].text for request in timed]
    assert numbers == [f"q{number}" for number in range(0, 16, 2) for _ in range(2)]
    firsts = [request.reduction.budget.tokens_per_tile == 9 for request in timed[::2]]
    assert firsts == [True, False] * 4


def test_what_a_service_refuses_is_left_out_once(asked: tuple[ScriptedDeployment, str], tmp_path: Path) -> None:
    _, address = asked
    wide = at(2, 99, 4)
    grid = [point("8"), point("8", deployment=wide), point("9", deployment=wide), point("9", deployment=at(2, 99, 5))]
    with Journal(tmp_path, {"model": "m"}, resume=False) as journal:
        deployed = Deployed(address, (wide,))
        run(deployed, journal, []).measure(grid)
        assert [journal.get(each) is not None for each in grid] == [True, False, False, False]
    assert deployed.moves == [HERE, wide]
