"""The questions of an lmms-eval run, over real gRPC; lmms-eval itself is run by `make test-lmms-eval`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from studies.lmms_eval_plugin.asking import Prompt, RequestFailed, ask_all
from studies.lmms_eval_plugin.prompts import Messages, from_text
from studies.lmms_eval_plugin.summary import summarize
from tests.support.client_decoder import TOKENS_AFTER, TOKENS_BEFORE, ScriptedDeployment
from vscan.errors import InvalidArgument
from vscan_client import Client, Image, Retry, SamplingSpec


def prompts(count: int, drawn: Callable[[int], object] = lambda place: None) -> Iterator[Prompt]:
    """Questions, each with an image of its own."""
    for place in range(count):
        drawn(place)
        images = [Image.from_bytes(str(place).encode())]
        yield Prompt(f"task t, doc {place}", partial(from_text, f"number {place}?", images), SamplingSpec(max_new_tokens=8))


def test_answers_come_in_the_questions_order_and_some_are_asked_at_once(deployment: ScriptedDeployment, address: str) -> None:
    deployment.hold_before.clear()
    ahead: list[int] = []

    def let_go() -> None:
        for _ in range(4):
            assert deployment.entered.acquire(timeout=60)
        assert len(ahead) <= 8  # the rest is not even made yet
        deployment.hold_before.set()

    waiter = threading.Thread(target=let_go)
    waiter.start()
    with Client(server=address) as client:
        told: list[int] = []
        answers = ask_all(client, prompts(20, ahead.append), {}, 4, lambda: told.append(1))
    waiter.join()
    assert [answer.text for answer in answers] == [f"1 image(s): number {place}?" for place in range(20)]
    assert deployment.most_running == 4
    assert len(told) == 20
    summary = summarize(answers)
    assert summary.further["visual_tokens_unreduced"] == TOKENS_BEFORE
    assert summary.further["visual_tokens"] == TOKENS_AFTER
    assert summary.tokens == 20 * 4
    assert summary.empty == 0


def test_the_first_question_that_fails_ends_the_run_by_its_name(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_with = [InvalidArgument("messages[0]", "too long", limit="9 tokens")]
    ahead: list[int] = []
    with Client(server=address, retry=Retry(attempts=1)) as client, pytest.raises(RequestFailed) as caught:
        ask_all(client, prompts(50, ahead.append), {}, 1)
    assert str(caught.value) == "task t, doc 0: messages[0]: too long, limit 9 tokens"
    assert isinstance(caught.value.__cause__, InvalidArgument)
    assert len(ahead) < 50


def test_a_question_that_cannot_be_made_fails_by_its_name(address: str) -> None:
    def broken() -> Messages:
        raise OSError("no such picture")

    with Client(server=address) as client, pytest.raises(RequestFailed, match="task t, doc 7: no such picture"):
        ask_all(client, [Prompt("task t, doc 7", broken, SamplingSpec())], {}, 2)
