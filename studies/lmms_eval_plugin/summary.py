"""What a run's answers cost, for the results' metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vscan_client import Answer, FinishReason


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums over the answers of a run, and `further` means that lmms-eval writes beside them.

    Attributes:
        seconds: of all calls, as the client saw them, one after the other.
        tokens: generated.
        empty: answers without text.
    """

    seconds: float
    tokens: int
    empty: int
    further: dict[str, float]

    @property
    def tokens_per_second(self) -> float:
        """Of one call at a time."""
        return self.tokens / self.seconds if self.seconds else 0.0


def summarize(answers: Sequence[Answer]) -> Summary:
    """`further`: visual tokens of a question before reduction, after stage 1, and on average over the language model's layers,
    each a mean over the answers; and which share of the answers was cut at its greatest length.
    """
    count = len(answers) or 1
    return Summary(
        seconds=sum(answer.client.total_ms for answer in answers) / 1000,
        tokens=sum(answer.usage.completion_tokens for answer in answers),
        empty=sum(not answer.text for answer in answers),
        further={
            "visual_tokens_unreduced": sum(answer.usage.visual_tokens_unreduced for answer in answers) / count,
            "visual_tokens": sum(answer.usage.visual_tokens for answer in answers) / count,
            "visual_tokens_average_over_layers": sum(answer.usage.visual_tokens_average for answer in answers) / count,
            "cut_at_length": sum(answer.finish_reason is FinishReason.LENGTH for answer in answers) / count,
        },
    )
