"""What one fault came to: a row of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tests.faults.outcome import End, Outcome

_MOST_MESSAGES = 5
# What a part that is away may come to. Any other error, as InternalError for a stream that ended without its end, is a defect.
_ERRORS_OF_A_FAULT = frozenset({"Unavailable", "DeadlineExceeded", "ResourceExhausted"})
_SHOWN = ("fault", "component", "requests", "answered", "equal", "typed_errors", "lost", "duplicated", "recovery_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Counts are of all that the clients asked, from before the fault until all were answered after it.

    Attributes:
        equal: answers whose text and token ids are those of the undisturbed run.
        lost: requests that ended neither in an equal answer nor in an error of `vscan.errors`, within deadline and margin.
        duplicated: streams with more than one end or events after one, and requests that ended twice in the decoder's log or
            that the SDK sent again after their first event.
        recovery_s: from the mending to the first answer of the last client; None if it did not come.
        messages: what the errors said, the most frequent ones.
        signs: what proves that the fault was there; each must be over 0.
        not_in_log: answers that the decoder's log knows nothing of, where no line may be missing.
        errors_allowed: false where a client that tries again must not see any.
        left_over: what was still held when nobody asked any more; empty if nothing was.
    """

    fault: str
    component: str
    requests: int
    answered: int
    equal: int
    typed_errors: int
    lost: int
    duplicated: int
    recovery_s: float | None
    retries: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    messages: Sequence[str] = ()
    signs: Mapping[str, float] = field(default_factory=dict)
    not_in_log: int = 0
    errors_allowed: bool = True
    left_over: str = ""
    took_s: float = 0.0

    @classmethod
    def of(
        cls,
        fault: str,
        component: str,
        outcomes: Sequence[Outcome],
        *,
        ends: Mapping[str, int] | None = None,
        log_is_whole: bool = True,
        **rest: Any,
    ) -> Self:
        """Counts them.

        Args:
            ends: how often each request ended in the decoder's log; None where that was not read.
            log_is_whole: no line of it may be missing.
            rest: the other fields.
        """
        by_end: Mapping[End, int] = Counter(each.end for each in outcomes)
        answered = [each for each in outcomes if each.end is End.ANSWERED]
        return cls(
            fault=fault,
            component=component,
            requests=len(outcomes),
            answered=len(answered),
            equal=sum(each.equal for each in answered),
            typed_errors=by_end.get(End.TYPED_ERROR, 0),
            lost=sum(each.lost for each in outcomes),
            duplicated=sum(each.doubled for each in outcomes) + sum(times > 1 for times in (ends or {}).values()),
            retries=sum(max(0, each.attempts - 1) for each in outcomes),
            errors=dict(Counter(each.error for each in outcomes if each.error)),
            messages=frequent_messages(outcomes),
            not_in_log=sum(each.request_id not in ends for each in answered) if ends is not None and log_is_whole else 0,
            **rest,
        )

    @property
    def took_hold(self) -> bool:
        """Whether the fault did anything at all."""
        return bool(self.signs) and all(self.signs.values())

    def problems(self) -> Iterator[str]:
        """Why this row is a failure, a line each."""
        of = f"{self.fault} of {self.component}"
        if self.lost:
            yield f"{of}: {self.lost} requests lost"
        if self.duplicated:
            yield f"{of}: {self.duplicated} requests ended more than once"
        if self.typed_errors and not self.errors_allowed:
            yield f"{of}: {self.typed_errors} requests failed: {dict(self.errors)}"
        if unfit := {error: times for error, times in self.errors.items() if error not in _ERRORS_OF_A_FAULT}:
            yield f"{of}: errors that no fault excuses: {unfit}"
        if not self.took_hold:
            yield f"{of}: the fault never took hold: {dict(self.signs)}"
        if self.recovery_s is None:
            yield f"{of}: not every client was answered afterwards"
        if self.not_in_log:
            yield f"{of}: {self.not_in_log} answers are not in the decoder's log"
        if self.left_over:
            yield f"{of}: {self.left_over}"


def table(rows: Sequence[Row]) -> str:
    """For a terminal."""
    lines = [_SHOWN, *(tuple(_cell(getattr(row, name)) for name in _SHOWN) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_SHOWN))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def frequent_messages(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    """What the errors said, most frequent first, with the state of the call: whether its answer had begun, and its tries."""
    said = Counter(
        f"{each.error} {'during the answer' if each.request_id else 'before it'}: {each.message}"
        for each in outcomes
        if each.error
    )
    return tuple(f"{count} x {text}" for text, count in said.most_common(_MOST_MESSAGES))
