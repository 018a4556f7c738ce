"""What comes back: events while an answer is made, and the answer. Plain frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vscan_client.jsonable import jsonable


class FinishReason(StrEnum):
    """Why an answer ended."""

    UNKNOWN = "unknown"
    END_OF_SEQUENCE = "end_of_sequence"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    STOP_TOKEN = "stop_token"
    CONSTRAINT = "constraint"


class Place(StrEnum):
    """Where the tokens of an image or video were found."""

    UNKNOWN = "unknown"
    ENCODED = "encoded"
    MEMORY = "memory"
    REDIS = "redis"
    SHARED = "shared"
    ENCODER_MEMORY = "encoder_memory"


class PickedBy(StrEnum):
    """Which scan kept a token."""

    UNKNOWN = "unknown"
    LOCAL = "local"
    GLOBAL = "global"
    RANDOM = "random"
    ALL = "all"
    POOL = "pool"
    NEWLINE = "newline"
    CLASS = "class"


@dataclass(frozen=True, slots=True)
class Token:
    """A generated token.

    Attributes:
        logprob: its log-probability; this and what follows only where log-probabilities were asked for.
        top: token id and log-probability of the likeliest, most likely first.
        text_bytes: what it adds to the answer's text, maybe a part of a character; `None` for a control token, and from a
            server that does not say.
        top_bytes: the same of each of `top`.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    text_bytes: bytes | None = None
    top_bytes: tuple[bytes | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """A part of a picture in fractions of its width and height as people see it; what lies below 0 or over 1 is padding."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class TileGrid:
    """A grid of patches, and how many of the kept tokens are its own.

    One pass of the vision transformer, or several passes stitched together. `area` is the part of the image, or of each frame,
    that rows and columns share evenly; `None`: none, or the server does not say.
    """

    rows: int
    columns: int
    kept_count: int
    area: Area | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Which of the N patches of an image or video became its T visual tokens.

    Attributes:
        kept_indices: for each of the T tokens its patch (0 to N-1; tile after tile, row-major), ascending.
        picked_by: for each of the T tokens the scan that kept it.
        merged_into: for each of the N patches the token that holds it; empty if nothing was merged.
        tiles: the grids.
        unreduced_count: N.
    """

    kept_indices: tuple[int, ...]
    picked_by: tuple[PickedBy, ...]
    merged_into: tuple[int, ...]
    tiles: tuple[TileGrid, ...]
    unreduced_count: int


@dataclass(frozen=True, slots=True)
class SampledFrames:
    """What was looked at of a video.

    Attributes:
        seconds: when each frame comes, from the video's beginning, ascending.
        duration_seconds: how long the video is.
        interval_seconds: from one frame to the next where they are spread evenly.
    """

    seconds: tuple[float, ...]
    duration_seconds: float
    interval_seconds: float


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What became of one image or video. `kept` only where it was asked for; `frames` of a video."""

    sha256: bytes
    tokens_before: int
    tokens_after: int
    place: Place
    kept: Kept | None = None
    frames: SampledFrames | None = None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What one pruning layer did. `survivors`, where asked for: of each image or video the rows of its tokens that went on."""

    layer: int
    tokens_before: int
    tokens_after: int
    survivors: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts; averages are over the language model's layers.

    `reused_prompt_tokens`: of the prompt, those that the first layer did not run, because an earlier request had begun alike;
    `None` from a server that does not say.
    """

    prompt_tokens: int
    visual_tokens: int
    visual_tokens_unreduced: int
    visual_tokens_average: float
    completion_tokens: int
    reused_prompt_tokens: int | None = None
    reused_prompt_tokens_average: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Durations in milliseconds, measured by the decoder."""

    resolve_images_ms: float
    queue_ms: float
    prefill_ms: float
    prune_ms: float
    decode_ms: float
    time_to_first_token_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientReport:
    """The call as the client saw it.

    Attributes:
        attempts: requests sent, the one that was answered included.
        sent_bytes: bytes of these requests.
        first_token_ms: from the call to its first token; `None` if none came.
        total_ms: from the call to its end.
        trace_id: 32 hexadecimal digits; empty without tracing.
        server: the endpoint that answered: the address that the client was given, or one of those behind a name.
    """

    attempts: int
    sent_bytes: int
    first_token_ms: float | None
    total_ms: float
    trace_id: str
    server: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted, and its images and videos (`images`, in the prompt's order) are there. First, once."""

    request_id: str
    images: tuple[ImageReport, ...]
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer of one sample: whole characters, maybe none, and the tokens since its last delta that have all their
    text out.

    `reason` is why it ended, in its last delta; `None` before.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    sample: int = 0
    reason: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class SampleEnd:
    """How one sample ended."""

    sample: int
    reason: FinishReason
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer, or of all samples. Last, once. `reason` is sample 0's, the usage that of all together."""

    reason: FinishReason
    usage: Usage
    timings: Timings
    pruning: tuple[PruneReport, ...]
    seed: int
    samples: tuple[SampleEnd, ...] = ()


Event = Started | TextDelta | Finished


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the answers to a prompt."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, whole. Where several samples were asked for, text, tokens and reason are those of the first one."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    images: tuple[ImageReport, ...]
    pruning: tuple[PruneReport, ...]
    seed: int
    request_id: str
    client: ClientReport
    samples: tuple[Sample, ...]  # all of them, the first one too

    def to_dict(self) -> dict[str, Any]:
        """The answer as JSON values; digests in hexadecimal. `samples` only where there are several."""
        told = dict(jsonable(self))
        if len(self.samples) == 1:
            del told["samples"]
        return told
