"""The shared core, without I/O: digests first, retries, deadlines, folding."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from vscan.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    MissingImages,
    ResourceExhausted,
    Unavailable,
    VScanError,
)
from vscan.specs import ReductionMethod, ReductionSpec
from vscan_client import (
    Affinity,
    Event,
    Finished,
    FinishReason,
    Image,
    Retry,
    Sample,
    SampleEnd,
    Started,
    TextDelta,
    Timeout,
    Timings,
    Token,
    Usage,
    Video,
)
from vscan_client._balancer import Balancer, Route
from vscan_client._core import AnswerBuilder, Core, Exchange
from vscan_client.content import Visual

CAT, DOG = Image.from_bytes(b"cat"), Image.from_bytes(b"dog")


class Clock:
    """Time that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def make_core(clock: Clock | None = None, *, remembered_images: int = 10, **retry: Any) -> Core:
    return Core(
        timeout=Timeout(total=10.0),
        retry=Retry(**{"jitter": 0, **retry}),
        remembered_images=remembered_images,
        clock=clock or Clock(),
        random=Random(0),
    )


def begin(core: Core, *visuals: Visual, reduction: ReductionSpec | None = None, timeout: float | None = None) -> Exchange:
    route = Route(Balancer(["here"], Affinity(), clock=core.clock), None)
    return core.exchange(route, visuals, reduction, timeout)


def begin_among(core: Core, *visuals: Visual) -> Exchange:
    balancer = Balancer(["a", "b", "c"], Affinity(), clock=core.clock)
    return core.exchange(Route(balancer, "key"), visuals, None, None)


def send(exchange: Exchange) -> str:
    """One try; where it went."""
    with exchange.route.endpoint() as endpoint:
        exchange.sending(1)
    return endpoint


def sends(exchange: Exchange, visual: Visual) -> str:
    return "data" if exchange.form(visual).is_whole else "sha256"


def test_an_image_goes_whole_until_the_server_has_accepted_it() -> None:
    core = make_core()
    first = begin(core, CAT)
    assert sends(first, CAT) == "data"
    assert sends(begin(core, CAT), CAT) == "data"  # nothing was accepted yet
    first.accepted()
    assert sends(begin(core, CAT), CAT) == "sha256"
    assert sends(begin(core, DOG), DOG) == "data"


def test_an_image_known_under_one_reduction_goes_whole_under_another() -> None:
    core = make_core()
    begin(core, CAT).accepted()
    other = ReductionSpec(method=ReductionMethod.NONE)
    assert sends(begin(core, CAT, reduction=other), CAT) == "data"


def test_a_video_is_known_with_the_frames_that_were_looked_at_and_not_as_an_image() -> None:
    core = make_core()
    eight = Video.from_bytes(b"gif", frames=8)
    begin(core, eight).accepted()
    assert begin(core, eight).form(eight) == eight.bare
    for other in (Video.from_bytes(b"gif"), Video.from_bytes(b"gif", frames=4), Image.from_bytes(b"gif")):
        assert sends(begin(core, other), other) == "data"


def test_a_missing_video_goes_whole_exactly_once() -> None:
    core = make_core(attempts=1)
    frames = Video.from_frames([b"zero", b"one"])
    begin(core, CAT, frames).accepted()
    exchange = begin(core, CAT, frames)
    assert exchange.failed(MissingImages([frames.sha256])) == 0
    assert (sends(exchange, CAT), exchange.form(frames)) == ("sha256", frames)
    with pytest.raises(MissingImages):
        exchange.failed(MissingImages([frames.sha256]))


def test_the_oldest_image_is_forgotten() -> None:
    core = make_core(remembered_images=2)
    for image in (CAT, DOG, Image.from_bytes(b"emu")):
        begin(core, image).accepted()
    assert len(core.sent) == 2
    assert sends(begin(core, CAT), CAT) == "data"
    assert sends(begin(core, DOG), DOG) == "sha256"


def test_remembering_no_images_always_sends_them_whole() -> None:
    core = make_core(remembered_images=0)
    begin(core, CAT).accepted()
    assert sends(begin(core, CAT), CAT) == "data"


def test_a_missing_image_goes_whole_exactly_once() -> None:
    core = make_core(attempts=1)
    begin(core, CAT, DOG).accepted()
    exchange = begin(core, CAT, DOG)
    assert exchange.failed(MissingImages([CAT.sha256])) == 0
    assert (sends(exchange, CAT), sends(exchange, DOG)) == ("data", "sha256")
    with pytest.raises(MissingImages):
        exchange.failed(MissingImages([CAT.sha256]))


def test_an_image_named_by_digest_alone_cannot_be_sent() -> None:
    exchange = begin(make_core(), Image.from_digest(CAT.sha256))
    with pytest.raises(MissingImages):
        exchange.failed(MissingImages([CAT.sha256]))


@pytest.mark.parametrize("strange", [[], [DOG.sha256]])
def test_a_missing_image_that_was_not_asked_about_is_an_error(strange: list[bytes]) -> None:
    with pytest.raises(MissingImages):
        begin(make_core(), CAT).failed(MissingImages(strange))


def test_the_wait_doubles_up_to_its_bound() -> None:
    exchange = begin(make_core(attempts=6, backoff_ms=100, max_backoff_ms=300))
    waits = [exchange.failed(Unavailable("away")) for _ in range(5)]
    assert waits == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.3])
    with pytest.raises(Unavailable):
        exchange.failed(Unavailable("away"))


def test_the_server_says_when_to_come_back() -> None:
    exchange = begin(make_core(max_backoff_ms=100))
    assert exchange.failed(ResourceExhausted("full", retry_delay_ms=2500)) == pytest.approx(2.5)


def test_jitter_only_adds() -> None:
    core = make_core(jitter=0.5, budget=50)
    waits = [begin(core).failed(ResourceExhausted("full", retry_delay_ms=1000)) for _ in range(50)]
    assert all(1.0 <= wait <= 1.5 for wait in waits)
    assert len(set(waits)) > 40


def test_nothing_is_sent_again_after_the_first_event() -> None:
    exchange = begin(make_core())
    exchange.accepted()
    with pytest.raises(Unavailable):
        exchange.failed(Unavailable("away"))


@pytest.mark.parametrize("error", [InvalidArgument("x", "bad"), InternalError("oops"), DeadlineExceeded("late")])
def test_what_cannot_succeed_is_not_sent_again(error: VScanError) -> None:
    with pytest.raises(type(error)):
        begin(make_core()).failed(error)


def test_a_wait_beyond_the_deadline_ends_the_call_at_once() -> None:
    clock = Clock()
    exchange = begin(make_core(clock))
    clock.seconds += 8
    with pytest.raises(ResourceExhausted):
        exchange.failed(ResourceExhausted("full", retry_delay_ms=2000))


def test_tries_share_one_deadline() -> None:
    clock = Clock()
    exchange = begin(make_core(clock))
    assert exchange.sending(100) == pytest.approx(10)
    clock.seconds += 4
    assert exchange.sending(50) == pytest.approx(6)
    assert (exchange.attempts, exchange.sent_bytes) == (2, 150)
    clock.seconds += 6
    with pytest.raises(DeadlineExceeded):
        exchange.sending(1)


def test_a_call_may_have_its_own_timeout() -> None:
    assert begin(make_core(), timeout=3.0).left_s() == pytest.approx(3.0)
    with pytest.raises(InvalidArgument, match="timeout"):
        begin(make_core(), timeout=float("nan"))


def test_retries_of_all_calls_share_a_budget() -> None:
    core = make_core(budget=2)
    begin(core).failed(Unavailable("away"))
    begin(core).failed(Unavailable("away"))
    with pytest.raises(Unavailable):
        begin(core).failed(Unavailable("away"))
    for _ in range(11):  # one more than ten: binary fractions
        begin(core).accepted()
    begin(core).failed(Unavailable("away"))


def test_a_try_asks_all_endpoints_before_it_waits() -> None:
    clock = Clock()
    exchange = begin_among(make_core(clock, attempts=2, budget=1), CAT)
    asked, waits = [], []
    for delay_ms in (2000, 500, 900):
        asked.append(send(exchange))
        waits.append(exchange.failed(ResourceExhausted("full", retry_delay_ms=delay_ms)))
    assert sorted(asked) == ["a", "b", "c"]
    assert waits == pytest.approx([0, 0, 0.5])  # until the first of them may be free
    clock.seconds += 0.5
    assert send(exchange) == asked[1]
    with pytest.raises(ResourceExhausted):  # the others are known to be busy: they are not asked again
        exchange.failed(ResourceExhausted("full", retry_delay_ms=500))
    assert exchange.attempts == 4


def test_the_next_try_asks_all_that_may_be_free_by_then() -> None:
    clock = Clock()
    exchange = begin_among(make_core(clock), CAT)
    asked, waits = [], []
    for delay_ms in (500, 500, 100, 900, 900, 900):
        asked.append(send(exchange))
        waits.append(exchange.failed(ResourceExhausted("full", retry_delay_ms=delay_ms)))
        clock.seconds += 5 * waits[-1]
    assert waits == pytest.approx([0, 0, 0.1, 0, 0, 0.9])
    assert asked[:3] == asked[3:]


def test_going_on_to_another_endpoint_spends_nothing() -> None:
    core = make_core(attempts=1, budget=0)
    exchange = begin_among(core, CAT)
    for _ in range(2):
        send(exchange)
        assert exchange.failed(Unavailable("away")) == 0
    send(exchange)
    exchange.accepted()
    with pytest.raises(Unavailable):  # an answer has begun: nothing is sent again, anywhere
        exchange.failed(Unavailable("away"))


def test_the_bytes_of_a_missing_image_go_to_the_endpoint_that_lacks_it() -> None:
    core = make_core()
    begin_among(core, CAT).accepted()
    exchange = begin_among(core, CAT)
    busy = send(exchange)
    exchange.failed(ResourceExhausted("full", retry_delay_ms=1))
    lacking = send(exchange)
    assert (lacking != busy, sends(exchange, CAT)) == (True, "sha256")
    assert exchange.failed(MissingImages([CAT.sha256])) == 0
    assert (send(exchange), sends(exchange, CAT)) == (lacking, "data")


def test_what_cannot_succeed_is_asked_of_nobody_else() -> None:
    exchange = begin_among(make_core(), CAT)
    send(exchange)
    with pytest.raises(InvalidArgument):
        exchange.failed(InvalidArgument("x", "bad"))


def finished() -> Finished:
    usage = Usage(prompt_tokens=3, visual_tokens=2, visual_tokens_unreduced=9, visual_tokens_average=1.5, completion_tokens=2)
    timings = Timings(
        resolve_images_ms=0, queue_ms=0, prefill_ms=0, prune_ms=0, decode_ms=0, time_to_first_token_ms=0, total_ms=0
    )
    return Finished(FinishReason.LENGTH, usage, timings, (), 7)


def test_events_become_an_answer() -> None:
    clock = Clock()
    builder = AnswerBuilder(begin(make_core(clock)))
    builder.add(Started("r1", (), 3))
    clock.seconds += 0.25
    builder.add(TextDelta("a", (Token(1),)))
    clock.seconds += 0.25
    builder.add(TextDelta(" b", (Token(2), Token(3))))
    builder.add(finished())
    answer = builder.answer("cafe")
    assert (answer.text, [token.token_id for token in answer.tokens]) == ("a b", [1, 2, 3])
    assert (answer.request_id, answer.seed, answer.finish_reason) == ("r1", 7, FinishReason.LENGTH)
    assert answer.client.first_token_ms == pytest.approx(250)
    assert answer.client.total_ms == pytest.approx(500)
    assert answer.client.trace_id == "cafe"


def test_samples_come_mixed_and_each_is_whole_in_the_answer() -> None:
    builder = AnswerBuilder(begin(make_core()))
    deltas: list[Event] = [
        TextDelta("a", (Token(1),)),
        TextDelta("x", (Token(7),), sample=1),
        TextDelta("b", (Token(2),), sample=0),
    ]
    deltas.append(TextDelta("", (Token(8),), 1, FinishReason.END_OF_SEQUENCE))
    for event in (Started("r1", (), 3), *deltas):
        builder.add(event)
    ends = (SampleEnd(0, FinishReason.LENGTH, 2), SampleEnd(1, FinishReason.END_OF_SEQUENCE, 2))
    builder.add(replace(finished(), samples=ends))
    answer = builder.answer()
    assert answer.samples == (
        Sample("ab", (Token(1), Token(2)), FinishReason.LENGTH),
        Sample("x", (Token(7), Token(8)), FinishReason.END_OF_SEQUENCE),
    )
    assert Sample(answer.text, answer.tokens, answer.finish_reason) == answer.samples[0]


def test_the_answer_of_a_server_that_knows_no_samples_is_the_only_one() -> None:
    builder = AnswerBuilder(begin(make_core()))
    for event in (Started("r1", (), 3), TextDelta("a", (Token(1),)), finished()):
        builder.add(event)
    assert builder.answer().samples == (Sample("a", (Token(1),), FinishReason.LENGTH),)


def test_fewer_samples_than_were_asked_for_are_an_error_and_not_an_answer() -> None:
    builder = AnswerBuilder(begin(make_core()), samples=3)
    for event in (Started("r1", (), 3), TextDelta("a", (Token(1),)), finished()):
        builder.add(event)
    with pytest.raises(FailedPrecondition, match="1 of 3 samples"):
        builder.answer()


def out_of_order() -> Iterator[list[Started | TextDelta | Finished]]:
    start = Started("r1", (), 3)
    yield [TextDelta("a")]
    yield [finished()]
    yield [start, start]
    yield [start, finished(), TextDelta("a")]


@pytest.mark.parametrize("events", list(out_of_order()))
def test_events_out_of_order_are_an_error(events: list[Started | TextDelta | Finished]) -> None:
    builder = AnswerBuilder(begin(make_core()))
    for event in events[:-1]:
        builder.add(event)
    with pytest.raises(InternalError):
        builder.add(events[-1])


def test_half_an_answer_is_none() -> None:
    builder = AnswerBuilder(begin(make_core()))
    builder.add(Started("r1", (), 3))
    builder.add(TextDelta("a"))
    with pytest.raises(InternalError):
        builder.answer()
