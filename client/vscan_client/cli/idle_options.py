"""Options of a question that would change nothing beside another one: refused where a person typed both."""

from __future__ import annotations

from collections.abc import Iterator

from vscan.errors import InvalidArgument
from vscan.specs import Rater, ReductionMethod
from vscan_client.cli.questions import QuestionOptions

_SAMPLING = ("top_p", "top_k", "min_p")


def refuse_idle(options: QuestionOptions) -> None:
    """Raises InvalidArgument for the first option that another one takes the meaning of."""
    for name, why, limit in _idle(options):
        if getattr(options, name) is not None:
            raise InvalidArgument(f"--{name.replace('_', '-')}", f"given, and {why}", limit=f"only {limit}")


def _idle(options: QuestionOptions) -> Iterator[tuple[str, str, str]]:
    if options.reduction == ReductionMethod.NONE:
        for name in ("budget", "local_share", "merge"):
            yield name, "nothing is reduced", "with another --reduction than none"
    elif options.reduction not in (None, ReductionMethod.VSCAN):
        yield "local_share", f"{options.reduction} has no share for the local scan", "with --reduction vscan"
    if options.rater == Rater.NONE:
        for name in ("keep", "positions"):
            yield name, "nothing is pruned", "with another --rater than none"
    if not options.temperature:
        for name in _SAMPLING:
            yield name, "answers are greedy", "with a --temperature over 0"
