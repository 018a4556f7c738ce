"""What became of one request. Times are in seconds from the run's beginning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from studies.load.workload import Ask

OK = "OK"
_MS = 1e3


@dataclass(slots=True)
class Record:
    """One request, from the time it was due to its end.

    Attributes:
        ask: what was asked.
        sent_s: when the generator sent it; it may be later than due.
        content_s: when each piece of the answer came.
        end_s: when its last word, or its error, came.
        code: `OK`, or the error's gRPC status.
        message: of the error.
        completion_tokens, prompt_tokens: as the server counts them; `None` where it does not tell.
        visual_before, visual_after: visual tokens of all its images, before and after the encoder's reduction.
        visual_average: those that the language model had, on average over its layers.
        places: where each image's tokens were found.
    """

    ask: Ask
    sent_s: float
    content_s: list[float] = field(default_factory=list)
    end_s: float | None = None
    code: str = OK
    message: str = ""
    completion_tokens: int | None = None
    prompt_tokens: int | None = None
    visual_before: int | None = None
    visual_after: int | None = None
    visual_average: float | None = None
    places: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.code == OK

    @property
    def begin_s(self) -> float:
        """When its caller began to wait: when it was due, however late it was sent."""
        return self.sent_s if self.ask.due_s is None else self.ask.due_s

    @property
    def late_ms(self) -> float | None:
        """How late the generator sent it; `None` in a closed loop, where nothing is due."""
        return None if self.ask.due_s is None else (self.sent_s - self.ask.due_s) * _MS

    @property
    def ttft_ms(self) -> float | None:
        """To the first piece of the answer."""
        return (self.content_s[0] - self.begin_s) * _MS if self.content_s else None

    @property
    def miscounted(self) -> bool:
        """Whether the server gave no count of the answer's tokens, or one below its pieces or above what was asked for."""
        counted, most = self.completion_tokens, self.ask.answer_tokens
        return counted is None or counted < len(self.content_s) or (most is not None and counted > most)

    @property
    def answer_tokens(self) -> int | None:
        """The server's count; where that cannot be, the pieces that came, each of which has a token at least."""
        return len(self.content_s) if self.miscounted else self.completion_tokens

    @property
    def short(self) -> bool:
        """Whether it was answered with fewer tokens than asked for, which is less work."""
        tokens, asked = self.answer_tokens, self.ask.answer_tokens
        return self.ok and asked is not None and tokens is not None and tokens < asked

    @property
    def tpot_ms(self) -> float | None:
        """From the first piece to the last, for each token after the first; `None` where there is one token alone."""
        tokens = self.answer_tokens
        if not self.content_s or tokens is None or tokens < 2:
            return None
        return (self.content_s[-1] - self.content_s[0]) * _MS / (tokens - 1)

    @property
    def gaps_ms(self) -> list[float]:
        """Between pieces that follow each other."""
        return [(after - before) * _MS for before, after in zip(self.content_s, self.content_s[1:], strict=False)]

    @property
    def total_ms(self) -> float | None:
        """To its end; of a request that failed too."""
        return None if self.end_s is None else (self.end_s - self.begin_s) * _MS

    def meets(self, ttft_ms: float, tpot_ms: float) -> bool:
        """Whether it was answered within both targets. An answer of one token has no TPOT to miss."""
        first, each = self.ttft_ms, self.tpot_ms
        return self.ok and first is not None and first <= ttft_ms and (each is None or each <= tpot_ms)

    def to_json(self) -> dict[str, Any]:
        """One line of the raw records."""
        return {
            "number": self.ask.number,
            "style": self.ask.style,
            "images": list(self.ask.images),
            "due_s": self.ask.due_s,
            "sent_s": self.sent_s,
            "content_s": self.content_s,
            "end_s": self.end_s,
            "code": self.code,
            "message": self.message,
            "completion_tokens": self.completion_tokens,
            "prompt_tokens": self.prompt_tokens,
            "visual_before": self.visual_before,
            "visual_after": self.visual_after,
            "visual_average": self.visual_average,
            "places": list(self.places),
        }
