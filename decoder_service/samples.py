"""The samples of one request: several answers to one prompt, which runs once.

    prompt ── one sequence ──▶ its last row gives all first tokens ──┬─ sample 0 ──▶ …       each decodes, is preempted and
                                                                     ├─ sample 1 ──▶ …       ends by itself
                                                                     └─ sample 2 ──▶ …

All hold the prompt's blocks together. The request ends with the last of them; what fails one fails it whole.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

from decoder_service.answer import Answer
from decoder_service.request import Delta, SampledToken, SampleEnd, State
from decoder_service.scheduler import Scheduler
from decoder_service.sequence import Sequence


class Samples:
    """Owned by the engine's thread.

    Args:
        first: of all samples, until the prompt is held whole.
        answers: one for each.
    """

    def __init__(self, first: Sequence, answers: Items[Answer], scheduler: Scheduler) -> None:
        self._answers = answers
        self._scheduler = scheduler
        self._going_on = {first.sample: first}  # never empty: the last one to end leaves with the request

    @property
    def ends(self) -> tuple[SampleEnd, ...] | None:
        """How each ended; None while one goes on."""
        ends = tuple(answer.end for answer in self._answers if answer.end is not None)
        return ends if len(ends) == len(self._answers) else None

    def push(self, sequence: Sequence, tokens: Items[SampledToken]) -> list[Delta]:
        """`sequence` has run, and `tokens` were drawn from its last row: none, one, or the first one of every sample.
        Returns what there is to tell of.

        Raises:
            VScanError: an answer cannot go on.
        """
        deltas = [self._answers[sample].push(token) for sample, token in enumerate(tokens, sequence.sample)]
        for sample, token in enumerate(tokens[1:], 1):
            if self._answers[sample].end is None:
                self._going_on[sample] = self._scheduler.fork(sequence, sample)
                self._going_on[sample].append(token.token_id)
        if tokens:
            sequence.samples = 1
            sequence.append(tokens[0].token_id)
            self._leave_if_ended(sequence)
        return [delta for delta in deltas if delta.text or delta.tokens or delta.reason is not None]

    def end(self, to: State) -> None:
        """All that go on end in the final state `to`, and the request with them."""
        *others, last = self._going_on.values()
        for sequence in others:
            self._scheduler.remove(sequence, to, last=False)
        self._scheduler.remove(last, to)

    def _leave_if_ended(self, sequence: Sequence) -> None:
        if self._answers[sequence.sample].end is not None and len(self._going_on) > 1:
            self._scheduler.remove(self._going_on.pop(sequence.sample), State.FINISHED, last=False)
