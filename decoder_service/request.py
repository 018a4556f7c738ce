"""A request inside the decoder: what it asks, the states it goes through, and what it tells its caller.

    WAITING ──▶ RUNNING ──▶ FINISHED      a result
       │  ◀──────  │                      preempted: its memory was needed, it will run its rows again
       ├───────────┼──────▶ FAILED        a typed error; its deadline passed; the service stops
       └───────────┴──────▶ CANCELLED     the caller left

Every accepted request enters exactly one of the three final states, once. No torch here: the scheduler reads this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from vscan.errors import VScanError
from vscan.rpc.deadlines import Deadline
from vscan.specs import PositionPolicy, PruneBudget, Rater

if TYPE_CHECKING:
    from decoder_service.constraint.grammar import Grammar
    from vscan.visual_tokens import VisualTokens

NO_DEADLINE = Deadline()


@dataclass(frozen=True, slots=True)
class ImageSpan:
    """Rows `start` to `start + count` of the prompt are the visual tokens of image `image`.

    rows    s s s v v v v q q        spans = [ImageSpan(image=0, start=3, count=4)]
    """

    image: int
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, row by row. At a visual row the id is the family's placeholder and is never embedded.

    `image_keys` tells the images from all others, so that later prompts can reuse their rows; empty if that is not known.
    """

    token_ids: tuple[int, ...]
    spans: tuple[ImageSpan, ...] = ()
    images: tuple[VisualTokens, ...] = ()
    image_keys: tuple[bytes, ...] = ()

    @property
    def rows(self) -> int:
        """Rows at the first layer."""
        return len(self.token_ids)

    @property
    def visual_rows(self) -> int:
        """Rows that are visual tokens."""
        return sum(span.count for span in self.spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen, every field decided and within limits (see `SamplingParams` for meanings)."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    logprobs: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_token_ids: tuple[int, ...] = ()
    n: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """Stage 2 of one request, decided: one budget for each pruning layer that applies; no layers means no pruning.

    `Rater.DROP_ALL` has one layer and no budget.
    """

    layers: tuple[int, ...] = ()
    budgets: tuple[PruneBudget, ...] = ()
    rater: Rater = Rater.NONE
    seed: int = 0
    positions: PositionPolicy = PositionPolicy.RENUMBER


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What the engine is asked: immutable. `priority` orders the requests of one tenant: higher ones begin first."""

    request_id: str
    prompt: Prompt
    sampling: Sampling
    pruning: Pruning = field(default_factory=Pruning)
    grammar: Grammar | None = None  # what the answer must look like
    tenant: str = "default"
    priority: int = 0
    deadline: Deadline = NO_DEADLINE
    trace_context: Mapping[str, str] = field(default_factory=dict)  # W3C headers of the span that asked


class State(Enum):
    """Where a request is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES = {
    State.WAITING: {State.RUNNING, State.FAILED, State.CANCELLED},
    State.RUNNING: {State.WAITING, State.FINISHED, State.FAILED, State.CANCELLED},
}


class FinishReason(Enum):
    """Why an answer ended."""

    END_OF_SEQUENCE = "end_of_sequence"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    STOP_TOKEN = "stop_token"
    CONSTRAINT = "constraint"


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A generated token. `top` holds (token id, log-probability), most likely first, where log-probabilities were asked for.

    Of a constrained answer: `complete` when it is whole with this token, `problem` when it cannot be brought to its end.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    complete: bool = False
    problem: VScanError | None = None


@dataclass(frozen=True, slots=True)
class LayerPruning:
    """What one pruning layer did: for each image the surviving rows of its `VisualTokens`, ascending."""

    layer: int
    tokens_before: int
    survivors: tuple[tuple[int, ...], ...]

    @property
    def tokens_after(self) -> int:
        """Visual tokens that went on."""
        return sum(len(rows) for rows in self.survivors)


@dataclass(frozen=True, slots=True)
class Delta:
    """More of one sample's answer: whole characters, and the tokens whose text is out with them and was not before; with the
    last one why it ended.
    """

    text: str
    tokens: tuple[SampledToken, ...]
    sample: int = 0
    reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class SampleEnd:
    """How one sample ended."""

    sample: int
    reason: FinishReason
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All samples ended, in order here; the last event. Durations in milliseconds."""

    samples: tuple[SampleEnd, ...]
    pruning: tuple[LayerPruning, ...]
    queue_ms: float
    prefill_ms: float
    prune_ms: float
    decode_ms: float
    reused_rows: int = 0  # of the prompt, at the first layer: found in the cache
    reused_rows_average: float = 0.0  # over all layers

    @property
    def reason(self) -> FinishReason:
        """Of sample 0."""
        return self.samples[0].reason

    @property
    def completion_tokens(self) -> int:
        """Of all samples."""
        return sum(each.completion_tokens for each in self.samples)


@dataclass(frozen=True, slots=True)
class Failure:
    """The request failed or was cancelled; the last event."""

    error: VScanError


Event = Delta | Result | Failure
