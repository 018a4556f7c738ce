"""How one sequence (of a request, one sample) chooses its tokens, and what that depends on of its past."""

from __future__ import annotations

from decoder_service.request import EngineRequest
from decoder_service.runner.drawing import sample_seed, uniform
from decoder_service.runner.penalties import SeenTokens


class SamplingState:
    """Owned by the engine's thread. It is the sample's, not its rows': one that runs again from its first row keeps it."""

    def __init__(self, request: EngineRequest, sample: int = 0) -> None:
        sampling = request.sampling
        self.sampling = sampling
        self.walk = None if request.grammar is None else request.grammar.walk(ignore_eos=sampling.ignore_eos)
        penalised = (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty) != (1.0, 0.0, 0.0)
        self.seen = SeenTokens(request.prompt, max_new_tokens=sampling.max_new_tokens) if penalised else None
        self.draws = sampling.temperature > 0
        # Whether the largest logit is all there is to it.
        self.plain = not self.draws and self.seen is None and self.walk is None
        self._seed = sample_seed(sampling.seed, sample)
        self._taken = 0

    def next_number(self) -> float:
        """The number of [0, 1) by which the next token is drawn."""
        return uniform(self._seed, self._taken)

    def take(self, token_id: int) -> None:
        """The sequence goes on by a token."""
        self._taken += 1
        if self.seen is not None:
            self.seen.add(token_id)
        if self.walk is not None:
            self.walk.take(token_id)
