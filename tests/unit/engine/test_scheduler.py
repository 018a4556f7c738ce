import subprocess
import sys

import pytest

from decoder_service.request import State
from tests.support.scheduling import advance, pruned, ran, scheduler, sequence
from vscan.errors import InvalidArgument, ResourceExhausted


def test_first_come_first_served_within_the_batch() -> None:
    own = scheduler()
    a, b, c = (sequence(name) for name in "abc")
    for one in (a, b, c):
        own.add(one)
    assert advance(own) == {"a": (10, 10), "b": (10, 10)}
    assert (own.running, own.waiting) == (2, 1)
    assert advance(own) == {"a": (1, 1), "b": (1, 1)}
    own.remove(a, State.FINISHED)
    assert advance(own) == {"b": (1, 1), "c": (10, 10)}
    assert (a.state, c.state) == (State.FINISHED, State.RUNNING)


def test_a_long_prompt_runs_in_pieces_beside_the_others_decode_rows() -> None:
    own = scheduler(max_step_rows=8)
    own.add(sequence("a", 5))
    own.add(sequence("b", 20))
    steps = [advance(own) for _ in range(5)]
    assert steps == [
        {"a": (5, 5), "b": (3, 3)},
        {"a": (1, 1), "b": (7, 7)},
        {"a": (1, 1), "b": (7, 7)},
        {"a": (1, 1), "b": (3, 3)},
        {"a": (1, 1), "b": (1, 1)},
    ]


def test_behind_a_pruning_rows_wait_for_the_whole_prompt() -> None:
    own = scheduler(max_step_rows=8)
    own.add(pruned("a", text=3, visual=12, kept=7))
    assert [advance(own) for _ in range(4)] == [{"a": (8, 0)}, {"a": (8, 8)}, {"a": (0, 3)}, {"a": (1, 1)}]


def test_a_request_begins_when_it_has_pages_and_nobody_passes_it() -> None:
    own = scheduler(pages=15, max_running=8)
    for name, rows in (("a", 12), ("b", 16), ("c", 4)):  # 6, 8 and 2 pages, and one of places each
        own.add(sequence(name, rows, new=2))
    assert advance(own).keys() == {"a"}
    assert advance(own).keys() == {"a"}
    own.remove(own._running["a"], State.FINISHED)
    assert advance(own).keys() == {"b", "c"}


def test_the_youngest_gives_way_when_pages_run_out_and_comes_back() -> None:
    own = scheduler(pages=9, max_running=2, spare_blocks=1)
    a, b = sequence("a", 4, new=12), sequence("b", 4, new=8)  # a page in each segment, later four and three; and one of places
    own.add(a)
    own.add(b)
    seen = []
    while a.generated < 12:
        seen.append(advance(own))
    assert seen[0] == {"a": (4, 4), "b": (4, 4)}
    assert own.preemptions == 1
    assert (b.state, own.waiting, b.tables) == (State.WAITING, 1, [])
    generated = b.generated
    own.remove(a, State.FINISHED)
    # Its full blocks were found again, unless they had to go.
    again = advance(own)
    assert again.keys() == {"b"}
    assert again["b"][1] > 1
    assert b.generated == generated + 1


def test_a_waiting_request_can_leave() -> None:
    own = scheduler(max_running=1)
    a, b = sequence("a"), sequence("b")
    own.add(a)
    own.add(b)
    own.schedule()
    own.remove(b, State.CANCELLED)
    assert (own.waiting, own.running, b.state) == (0, 1, State.CANCELLED)


def test_samples_take_places_from_the_beginning_and_run_from_the_same_blocks() -> None:
    own = scheduler(max_running=4, max_waiting=9)
    many, one, late = sequence("many", 10, samples=3), sequence("one", 4), sequence("late", 4)
    for each in (many, one, late):
        own.add(each)
    step = own.schedule()
    assert ran(step) == {"many": (10, 10), "one": (4, 4)}
    assert (own.running, own.waiting) == (2, 1)  # three of the four places are the first one's
    own.advance(step)
    own.remove(one, State.CANCELLED)
    own.remove(late, State.CANCELLED)
    samples = [own.fork(many, 1), own.fork(many, 2), many]
    many.samples = 1
    for each in samples:
        each.append(1)
    assert own._cache.usage()[0].blocks == 3
    step = own.schedule()
    assert ran(step) == {"many": (1, 1), "many#1": (1, 1), "many#2": (1, 1)}
    assert len(step.copies) == 2 * 2  # the last one writes into the block that was everybody's
    own.advance(step)
    own._cache.check_integrity()
    assert own._cache.usage()[0].blocks == 2 + 3
    own.remove(samples[0], State.FINISHED, last=False)
    own.remove(samples[2], State.FINISHED, last=False)
    assert (own.running, own.waiting) == (1, 0)
    own.remove(samples[1], State.FINISHED)
    assert (own.running, len(own._queue)) == (0, 0)


def test_a_step_that_breaks_leaves_nobody_with_a_block_that_was_not_copied() -> None:
    own = scheduler(max_running=4)
    many, one = sequence("many", 10, samples=3), sequence("one", 4)
    own.add(many)
    own.add(one)
    own.advance(own.schedule())
    samples = [many, own.fork(many, 1), own.fork(many, 2)]
    many.samples = 1
    for each in (*samples, one):
        each.append(1)
    step = own.schedule()
    assert len(step.copies) == 2 * 2
    own.broke(step)  # as if only the request that breaks were in it
    # The third writes into the block that was everybody's; the one of another prompt has no part in this.
    assert [each.state for each in samples] == [State.WAITING, State.WAITING, State.RUNNING]
    assert one.state is State.RUNNING
    again = ran(own.schedule())
    assert (again["many"], again["many#2"]) == ((3, 3), (1, 1))  # its full blocks were found
    own._cache.check_integrity()


def test_preempted_samples_wait_at_their_requests_place_in_their_order() -> None:
    own = scheduler(max_running=3, max_waiting=9)
    many, later = sequence("many", 8, samples=3), sequence("later", 4)
    own.add(many)
    own.add(later)
    own.advance(own.schedule())
    samples = [own.fork(many, 1), own.fork(many, 2), many]
    many.samples = 1
    for each in samples:
        each.append(1)
    for each in samples:
        own._preempt(each)
    assert own.waiting == 4
    begun = [piece.sequence.name for piece in own.schedule().pieces]
    assert begun == ["many", "many#1", "many#2"]
    # They are requests of one sample now: each has a place of its own, and the one that came later none.
    assert (own.running, own.waiting) == (3, 1)
    for each in samples[:2]:
        own.remove(each, State.CANCELLED, last=False)
    assert [piece.sequence.name for piece in own.schedule().pieces] == ["many", "later"]


def test_a_full_queue_says_when_to_come_back() -> None:
    own = scheduler(max_waiting=2)
    own.add(sequence("a"))
    own.check_room("default")
    with pytest.raises(ResourceExhausted, match="2 requests wait") as refused:
        own.check_room("default", on_the_way=["default"])
    first = refused.value.retry_delay_ms
    assert first >= 100
    for _ in range(50):
        own.learn(20_000.0)
    with pytest.raises(ResourceExhausted) as refused:
        own.check_room("default", on_the_way=["default"])
    assert first < refused.value.retry_delay_ms <= 30_000


def test_what_can_never_fit_is_refused_naming_the_field() -> None:
    own = scheduler()
    own.check(sequence("a", 60, new=40))
    with pytest.raises(InvalidArgument, match=r"^sampling\.max_new_tokens: .*100 tokens"):
        own.check(sequence("a", 60, new=41))
    with pytest.raises(InvalidArgument, match=r"^prompt: 100 tokens"):
        own.check(sequence("a", 100, new=1))


def test_what_could_not_be_held_alone_is_refused() -> None:
    own = scheduler(pages=12)
    own.check(sequence("a", 16, new=5))  # the last token of an answer never takes a row
    with pytest.raises(InvalidArgument, match=r"^sampling\.n: 3, limit 2"):
        own.check(sequence("a", 16, new=1, samples=3))
    with pytest.raises(InvalidArgument, match="KV cache"):
        own.check(sequence("a", 16, new=6))
    # What is pruned takes nothing behind the pruning: 6 blocks and 2, and 2 pages of places.
    scheduler(pages=10).check(pruned("a", text=4, visual=16, kept=1, new=3))
    with pytest.raises(InvalidArgument, match="KV cache"):
        scheduler(pages=10).check(pruned("a", text=4, visual=16, kept=5, new=3))


def test_a_request_ends_once() -> None:
    own = sequence("a")
    own.move(State.RUNNING)
    own.move(State.FINISHED)
    for state in State:
        with pytest.raises(RuntimeError, match="finished"):
            own.move(state)


def test_a_waiting_request_cannot_finish() -> None:
    with pytest.raises(RuntimeError, match="waiting"):
        sequence("a").move(State.FINISHED)


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        scheduler(max_running=0)


def test_the_scheduler_does_not_import_torch() -> None:
    code = "import sys, decoder_service.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
