"""What the fault runs (`tests.faults`) count as lost, as doubled and as a failure: each can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.faults.album import Asking
from tests.faults.askers import PlainAsker, SdkAsker
from tests.faults.outcome import End, Outcome
from tests.faults.row import Row
from tests.support.client_decoder import ScriptedDeployment
from vscan.errors import Unavailable, VScanError
from vscan.v1 import decoder_pb2
from vscan_client._core import Exchange

ASKING = Asking(b"cat", "what?")
WELL = Row.of("stop", "redis", [], recovery_s=0.1, signs={"stopped": 1.0})


@pytest.mark.parametrize("kind", ["sdk", "plain"])
async def test_an_answer_is_lost_if_it_is_another_one(kind: str, address: str) -> None:
    asker = SdkAsker(0, [address]) if kind == "sdk" else PlainAsker(0, address)
    outcome, said = await asker.ask(ASKING, None)
    again, _ = await asker.ask(ASKING, said)
    await asker.aclose()
    assert said is not None
    assert (outcome.end, outcome.lost, again.lost, again.doubled) == (End.ANSWERED, True, False, False)


async def test_a_typed_error_is_an_end(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_with = [Unavailable("stopping")]
    asker = PlainAsker(0, address)
    outcome, _ = await asker.ask(ASKING, None)
    await asker.aclose()
    assert (outcome.end, outcome.error, outcome.lost) == (End.TYPED_ERROR, "Unavailable", False)


async def test_an_answer_that_ends_without_its_end_is_a_failure(
    deployment: ScriptedDeployment, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ScriptedDeployment._answer

    def cut(self: ScriptedDeployment, request: decoder_pb2.GenerateRequest, context: Any) -> Iterator[Any]:
        return (event for event in whole(self, request, context) if event.WhichOneof("event") != "finished")

    monkeypatch.setattr(ScriptedDeployment, "_answer", cut)
    askers = [SdkAsker(0, [address]), PlainAsker(1, address)]
    outcomes = [(await asker.ask(ASKING, None))[0] for asker in askers]
    for asker in askers:
        await asker.aclose()
    for outcome in outcomes:
        assert list(Row.of("stop", "redis", [outcome], recovery_s=0.1, signs={"stopped": 1.0}).problems())


async def test_a_client_that_asks_again_during_an_answer_is_caught(
    deployment: ScriptedDeployment, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Exchange.failed

    def forgets(exchange: Exchange, error: VScanError) -> float:
        exchange._accepted = False
        return failed(exchange, error)

    monkeypatch.setattr(Exchange, "failed", forgets)
    deployment.fail_after_first_text = Unavailable("stopping")
    asker = SdkAsker(0, [address])
    outcome, _ = await asker.ask(ASKING, None)
    await asker.aclose()
    assert (outcome.attempts, outcome.doubled) == (2, True)


def test_a_row_counts_requests_that_ended_twice_and_answers_that_the_log_lacks() -> None:
    outcome = Outcome(client=0, begun_s=0, ended_s=1, end=End.ANSWERED, equal=True, request_id="a", ends=1)
    row = Row.of("stop", "redis", [outcome], ends={"b": 2}, recovery_s=0.1, signs={"stopped": 1.0})
    assert (row.duplicated, row.not_in_log) == (1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        replace(WELL, lost=1),
        replace(WELL, duplicated=1),
        replace(WELL, signs={"stopped": 0.0}),
        replace(WELL, signs={}),
        replace(WELL, recovery_s=None),
        replace(WELL, not_in_log=1),
        replace(WELL, left_over="a lease"),
        replace(WELL, typed_errors=1, errors={"InternalError": 1}),
        replace(WELL, typed_errors=1, errors_allowed=False),
    ],
)
def test_a_bad_row_is_a_failure(bad: Row) -> None:
    assert list(WELL.problems()) == []
    assert len(list(bad.problems())) == 1
