"""Every error of the services and of the SDK, in one tree.

    VScanError
    ├── InvalidArgument        a field of the request is bad: names it, and the limit
    ├── FailedPrecondition     the request is well formed but cannot be met as things are
    │   └── MissingImages      digests whose tokens are gone: send the bytes
    ├── PermissionDenied       this caller may not do that
    ├── Unauthenticated        the caller's identity is missing or wrong
    ├── ResourceExhausted      too much work just now: says when to come back
    ├── Unavailable            a service or a dependency is away or stopping
    ├── DeadlineExceeded       the caller's time ran out
    ├── Cancelled              the caller gave up
    ├── InternalError          an unknown fault: carries a trace id, never the inner text
    └── StartupError           a service cannot start (never on the wire)
        └── CheckpointError    a checkpoint cannot be read or lacks a half

Each class carries its gRPC status and whether the same request may succeed when sent again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from grpc import StatusCode


class VScanError(Exception):
    """Base of all errors. `str(error)` is one line, safe to show to the caller."""

    status: ClassVar[StatusCode] = StatusCode.INTERNAL
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, trace_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.trace_id = trace_id

    def copy(self) -> Self:
        """The same error for another caller: each collects a traceback and a trace id of its own."""
        other = type(self).__new__(type(self))
        other.args = self.args
        other.__dict__.update(self.__dict__)
        return other


class InvalidArgument(VScanError):
    """A field of the request is bad.

    Args:
        field: path from the request, for instance `messages[1].parts[0].image`.
        problem: what is wrong, for instance `1,600 MP`.
        limit: the limit that was passed, for instance `50 MP`; empty if none was.
    """

    status = StatusCode.INVALID_ARGUMENT

    def __init__(self, field: str, problem: str, *, limit: str = "", trace_id: str = "") -> None:
        suffix = f", limit {limit}" if limit else ""
        super().__init__(f"{field}: {problem}{suffix}", trace_id=trace_id)
        self.field = field
        self.problem = problem
        self.limit = limit

    def below(self, prefix: str) -> InvalidArgument:
        """The same error for a field that lies below `prefix` in a larger request."""
        return InvalidArgument(f"{prefix}.{self.field}", self.problem, limit=self.limit, trace_id=self.trace_id)


class FailedPrecondition(VScanError):
    """The request is well formed but cannot be met as things are."""

    status = StatusCode.FAILED_PRECONDITION


class MissingImages(FailedPrecondition):
    """Images or videos were named by digest and their tokens are gone: send the bytes.

    Args:
        sha256: the digests, 32 bytes each.
        field: path of the first one concerned.
    """

    def __init__(self, sha256: Sequence[bytes], *, field: str = "image", trace_id: str = "") -> None:
        problem = f"{len(sha256)} image(s) or video(s) named by a digest that is not cached"
        super().__init__(f"{field}: {problem}; send the bytes", trace_id=trace_id)
        self.sha256 = tuple(sha256)
        self.field = field


class PermissionDenied(VScanError):
    """This caller may not do that."""

    status = StatusCode.PERMISSION_DENIED


class Unauthenticated(VScanError):
    """The caller's identity is missing or wrong."""

    status = StatusCode.UNAUTHENTICATED


class ResourceExhausted(VScanError):
    """Too much work just now.

    Args:
        retry_delay_ms: when to come back.
    """

    status = StatusCode.RESOURCE_EXHAUSTED
    retryable = True

    def __init__(self, message: str, *, retry_delay_ms: int, trace_id: str = "") -> None:
        super().__init__(message, trace_id=trace_id)
        self.retry_delay_ms = retry_delay_ms


class Unavailable(VScanError):
    """A service or a dependency is away, not ready or stopping."""

    status = StatusCode.UNAVAILABLE
    retryable = True


class DeadlineExceeded(VScanError):
    """The caller's time ran out."""

    status = StatusCode.DEADLINE_EXCEEDED


class Cancelled(VScanError):
    """The caller gave up."""

    status = StatusCode.CANCELLED


class InternalError(VScanError):
    """An unknown fault. The text never holds the inner error: that is in the service's log under the trace id."""

    status = StatusCode.INTERNAL


class StartupError(VScanError):
    """A service cannot start; the message is the one line printed before it exits non-zero."""

    status = StatusCode.FAILED_PRECONDITION


class CheckpointError(StartupError):
    """A checkpoint cannot be read, or lacks what a service needs."""
