"""How a client behaves: values given to its constructor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypedDict

from vscan.specs import PruneSpec, ReductionSpec, SamplingSpec

# One address, `host:port` or any gRPC target; several; or `dns:///name:port`, which stands for all addresses of a name.
ServerLike: TypeAlias = str | Sequence[str]
# A bearer token, or what gives one.
TokenLike: TypeAlias = str | Callable[[], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """How long to wait, in seconds; `None` waits for ever.

    Attributes:
        total: for a whole call, retries included; the server learns the rest of it and stops working when it is over.
        connect: for one attempt to connect.
    """

    total: float | None = 120.0
    connect: float = 5.0

    def __post_init__(self) -> None:
        if (self.total is not None and not self.total > 0) or not self.connect > 0:
            raise ValueError("timeouts are over 0 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When to send a call again by itself: the server was away or had too much to do, and nothing of the answer had come yet.

    The wait doubles from `backoff_ms` to `max_backoff_ms`; a server that says when to come back is obeyed. Together the default
    waits are longer than the 2 s that a channel may pause before it looks for a server again, so one that restarted is met.

    Attributes:
        attempts: tries in all; 1 never retries. Of several endpoints a try asks up to eight, one after the other without a
            wait, until one is neither away nor busy.
        backoff_ms: wait before the second try.
        max_backoff_ms: longest wait that the client chooses by itself.
        jitter: fraction of a wait that is added at random at most, so that many clients do not come back at once.
        budget: retries that all calls of the client together may spend ahead; ten calls that succeed earn one back. So a
            server that is down is not met with a multiple of its load.
    """

    attempts: int = 6
    backoff_ms: int = 100
    max_backoff_ms: int = 5_000
    jitter: float = 0.5
    budget: int = 10

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.backoff_ms < 0 or self.max_backoff_ms < self.backoff_ms:
            raise ValueError("at least one attempt, and 0 <= backoff_ms <= max_backoff_ms")
        if not 0 <= self.jitter <= 1 or self.budget < 0:
            raise ValueError("jitter is 0 to 1 and budget at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Affinity:
    """How calls are spread over several endpoints: those that begin with the same image or video go to the same one.

    Attributes:
        load_factor: how many of the client's calls an endpoint has at once at most, as a multiple of the average over all that
            are well; what is beyond goes to the next one. At least 1.
        min_in_flight: so many it may have in any case: a client with few calls is not spread for their number.
        rest_ms: how long an endpoint that could not be reached is left alone; doubles as long as it is away. One that is busy
            is left alone as long as it says.
        max_rest_ms: the longest that either lasts.
        refresh_s: how often the addresses of a name are looked up again, in seconds.
    """

    load_factor: float = 1.25
    min_in_flight: int = 4
    rest_ms: int = 500
    max_rest_ms: int = 10_000
    refresh_s: float = 30.0

    def __post_init__(self) -> None:
        if not self.load_factor >= 1 or self.min_in_flight < 1:
            raise ValueError("load_factor and min_in_flight are at least 1")
        if not 0 <= self.rest_ms <= self.max_rest_ms or not self.refresh_s > 0:
            raise ValueError("0 <= rest_ms <= max_rest_ms, and refresh_s over 0 seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """An encrypted channel.

    Attributes:
        ca_file: certificates (PEM) that may sign the server's; `None`: the ones that gRPC brings.
        cert_file, key_file: the client's own (PEM), both or none.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together")


class AskOptions(TypedDict, total=False):
    """Keywords of every verb that asks. What is left out is as the deployment does it.

    Attributes:
        reduction: stage 1, for every image and video of the request.
        prune: stage 2.
        sampling: how tokens are chosen; greedy by default.
        report_kept: report which patches were kept, by the encoder and by each pruning layer.
        priority: -100 to 100; of the caller's own requests higher ones begin first, and lower ones give way first.
        timeout: seconds for this call, instead of `Timeout.total`.
    """

    reduction: ReductionSpec | None
    prune: PruneSpec | None
    sampling: SamplingSpec | None
    report_kept: bool
    priority: int
    timeout: float | None


def refuse_unknown(verb: str, options: AskOptions) -> None:
    """Raises TypeError for a name that is no option, as any other function does."""
    for name in options:
        if name not in AskOptions.__annotations__:
            raise TypeError(
                f"{verb}() got an unexpected keyword argument {name!r}; it takes {', '.join(AskOptions.__annotations__)}"
            )
