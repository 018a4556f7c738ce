"""What the peer does around the model: which requests it answers together, and how long each one's answer is."""

from __future__ import annotations

import io
import json
import queue
from typing import Any

import numpy as np
import pytest

from studies.load.targets.transformers_worker import Batches, _Tokens

END = 2


class Ending:
    """As much of a model as a streamer asks for."""

    def ends(self, token: int) -> bool:
        return token == END


def request(number: int, answer_tokens: int | None) -> dict[str, Any]:
    return {"id": number, "answer_tokens": answer_tokens}


def batches(most: int, *requests: dict[str, Any]) -> list[list[int]]:
    waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    for each in (*requests, None):
        waiting.put(each)
    made, found = Batches(waiting, most), []
    while (batch := made.next()) is not None:
        found.append([each["id"] for each in batch])
    return found


def test_what_waits_is_answered_together_in_order_and_exact_lengths_apart_from_the_models_own() -> None:
    assert batches(2, *(request(number, 4) for number in range(5))) == [[0, 1], [2, 3], [4]]
    mixed = (request(0, 4), request(1, 9), request(2, None), request(3, None), request(4, 4))
    assert batches(4, *mixed) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("lengths", "told"), [((1, 3), [0, 1, 1, 1]), ((None, None), [0, 1, 1])], ids=["exact", "until the end"]
)
def test_an_answer_ends_at_its_own_length_however_long_the_batch_runs(lengths: tuple[int | None, ...], told: list[int]) -> None:
    out = io.StringIO()
    streamer = _Tokens(Ending(), [request(number, length) for number, length in enumerate(lengths)], out)  # type: ignore[arg-type]
    streamer.put(np.array([[5, 5], [5, 5]]))  # the prompt
    for step in ([END, 7], [8, END], [9, 9]):
        streamer.put(np.array(step))
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == told
