"""When the decoder asks an encoder again."""

import time

from decoder_service.encoder_retries import EncoderRetries
from vscan.rpc.deadlines import Deadline

NEVER = Deadline(None)


def waits(retries: EncoderRetries, deadline: Deadline = NEVER) -> list[float]:
    """Those of one call that never succeeds."""
    found: list[float] = []
    while (wait := retries.wait_seconds(len(found) + 1, deadline)) is not None:
        found.append(wait)
    return found


def test_a_call_is_sent_again_a_few_times_first_at_once() -> None:
    found = waits(EncoderRetries())
    assert found == sorted(found)
    assert (len(found), found[0]) == (5, 0.0)


def test_all_calls_share_a_budget_that_answers_fill_again() -> None:
    retries = EncoderRetries()
    assert sum(len(waits(retries)) for _ in range(100)) == 64
    for _ in range(11):  # one more than ten: binary fractions
        retries.answered()
    assert len(waits(retries)) == 1


def test_a_call_whose_time_is_over_is_not_sent_again() -> None:
    assert waits(EncoderRetries(), Deadline(time.monotonic())) == []
