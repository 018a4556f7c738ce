import subprocess
import sys

import pytest

from decoder_service.request import EngineRequest, Prompt, Sampling, State, Ticket
from decoder_service.scheduler import Scheduler
from vscan.errors import InvalidArgument, ResourceExhausted


def ticket(name: str, rows: int = 10) -> Ticket:
    return Ticket(EngineRequest(request_id=name, prompt=Prompt(tuple([5] * rows)), sampling=Sampling(max_new_tokens=4)))


def scheduler(**limits: int) -> Scheduler:
    return Scheduler(**({"max_context_tokens": 100, "max_running": 2, "max_waiting": 3} | limits))


def names(tickets: tuple[Ticket, ...]) -> list[str]:
    return [one.request_id for one in tickets]


def test_first_come_first_served_within_the_batch() -> None:
    own = scheduler()
    a, b, c = (ticket(name) for name in "abc")
    for one in (a, b, c):
        own.add(one)
    step = own.schedule()
    assert (names(step.beginning), names(step.going_on)) == (["a", "b"], [])
    assert (own.running, own.waiting) == (2, 1)
    step = own.schedule()
    assert (names(step.beginning), names(step.going_on)) == ([], ["a", "b"])
    own.remove(a, State.FINISHED)
    step = own.schedule()
    assert (names(step.beginning), names(step.going_on), names(step.tickets)) == (["c"], ["b"], ["c", "b"])
    assert a.state is State.FINISHED
    assert c.state is State.RUNNING


def test_nobody_passes_one_that_waits_for_room_in_the_step() -> None:
    own = scheduler(max_running=8, max_prompt_rows_per_step=25)
    for name, rows in (("a", 10), ("b", 10), ("c", 10), ("d", 1)):
        own.add(ticket(name, rows))
    assert names(own.schedule().beginning) == ["a", "b"]
    assert names(own.schedule().beginning) == ["c", "d"]


def test_a_prompt_larger_than_a_step_runs_alone() -> None:
    own = scheduler(max_prompt_rows_per_step=25)
    own.add(ticket("large", 60))
    own.add(ticket("small", 1))
    assert names(own.schedule().beginning) == ["large"]
    assert names(own.schedule().beginning) == ["small"]


def test_a_waiting_request_can_leave() -> None:
    own = scheduler(max_running=1)
    a, b = ticket("a"), ticket("b")
    own.add(a)
    own.add(b)
    own.schedule()
    own.remove(b, State.CANCELLED)
    assert (own.waiting, own.running, b.state) == (0, 1, State.CANCELLED)


def test_a_full_queue_says_when_to_come_back() -> None:
    own = scheduler(max_waiting=2)
    own.add(ticket("a"))
    own.check_room()
    with pytest.raises(ResourceExhausted, match="limit 2") as refused:
        own.check_room(on_the_way=1)
    first = refused.value.retry_delay_ms
    assert first >= 100
    for _ in range(50):
        own.learn(20_000.0)
    with pytest.raises(ResourceExhausted) as refused:
        own.check_room(on_the_way=1)
    assert first < refused.value.retry_delay_ms <= 30_000


def test_what_can_never_fit_is_refused_naming_the_field() -> None:
    own = scheduler()
    own.check(60, 40)
    with pytest.raises(InvalidArgument, match=r"^sampling\.max_new_tokens: .*100 tokens"):
        own.check(60, 41)
    with pytest.raises(InvalidArgument, match=r"^prompt: 100 tokens"):
        own.check(100, 1)


def test_a_request_ends_once() -> None:
    own = ticket("a")
    own.move(State.RUNNING)
    own.move(State.FINISHED)
    for state in State:
        with pytest.raises(RuntimeError, match="finished"):
            own.move(state)


def test_a_waiting_request_cannot_finish() -> None:
    with pytest.raises(RuntimeError, match="waiting"):
        ticket("a").move(State.FINISHED)


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        scheduler(max_running=0)


def test_the_scheduler_does_not_import_torch() -> None:
    code = "import sys, decoder_service.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
