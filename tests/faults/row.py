"""What one fault came to: a row of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.outcome import Outcome

_MOST_MESSAGES = 5
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
    took_hold: bool = True
    not_in_log: int = 0
    errors_allowed: bool = True
    left_over: str = ""
    took_s: float = 0.0

    def problems(self) -> Iterator[str]:
        """Why this row is a failure, a line each."""
        of = f"{self.fault} of {self.component}"
        if self.lost:
            yield f"{of}: {self.lost} requests lost"
        if self.duplicated:
            yield f"{of}: {self.duplicated} requests ended more than once"
        if self.typed_errors and not self.errors_allowed:
            yield f"{of}: {self.typed_errors} requests failed: {dict(self.errors)}"
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
