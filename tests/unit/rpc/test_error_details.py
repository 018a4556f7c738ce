"""Every error travels whole, and every status that comes without details means an error."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from vscan.errors import (
    Cancelled,
    CheckpointError,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidArgument,
    MissingImages,
    PermissionDenied,
    ResourceExhausted,
    StartupError,
    Unauthenticated,
    Unavailable,
    VScanError,
)
from vscan.rpc.error_details import (
    FROM_DETAIL,
    MAX_MESSAGE_CHARS,
    NEVER_ON_THE_WIRE,
    STATUS_DETAILS_KEY,
    error_from_rpc,
    one_line,
    to_detail,
    to_status,
)
from vscan.v1 import errors_pb2

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
DIGESTS = (b"\x01" * 32, b"\x02" * 32)

# One of each class. A class that is not here fails `test_every_class_is_tried`.
EXAMPLES: dict[type[VScanError], VScanError] = {
    InvalidArgument: InvalidArgument("messages[1].parts[0].image", "1,600 MP", limit="50 MP", trace_id=TRACE),
    FailedPrecondition: FailedPrecondition("not paired", trace_id=TRACE),
    MissingImages: MissingImages(DIGESTS, field="messages[0].parts[2].image", trace_id=TRACE),
    PermissionDenied: PermissionDenied("raw prompts are off", trace_id=TRACE),
    Unauthenticated: Unauthenticated("who are you", trace_id=TRACE),
    ResourceExhausted: ResourceExhausted("the queue is full", retry_delay_ms=2500, trace_id=TRACE),
    Unavailable: Unavailable("stopping", trace_id=TRACE),
    DeadlineExceeded: DeadlineExceeded("too late", trace_id=TRACE),
    Cancelled: Cancelled("gone", trace_id=TRACE),
    InternalError: InternalError("internal fault", trace_id=TRACE),
}


def classes(base: type[VScanError] = VScanError) -> Iterator[type[VScanError]]:
    for subclass in base.__subclasses__():
        yield subclass
        yield from classes(subclass)


def travelling() -> list[type[VScanError]]:
    ours = (error for error in classes() if not error.__module__.startswith("tests"))
    return [error for error in ours if not issubclass(error, NEVER_ON_THE_WIRE)]


def as_rpc_error(code: grpc.StatusCode, message: str, status: bytes | None = None) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata() if status is None else grpc.aio.Metadata((STATUS_DETAILS_KEY, status))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details=message, debug_error_string="")


def there_and_back(error: VScanError) -> VScanError:
    return error_from_rpc(as_rpc_error(error.status, one_line(error.message), to_status(error)))


def test_every_class_is_tried_and_has_a_mapping() -> None:
    assert set(EXAMPLES) == set(travelling())
    assert {error.__name__ for error in travelling()} <= set(FROM_DETAIL)


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)
def test_an_error_travels_whole(error: VScanError) -> None:
    back = there_and_back(error)
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)
    assert (back.status, back.retryable) == (error.status, error.retryable)


@pytest.mark.parametrize("error", EXAMPLES.values(), ids=lambda error: type(error).__name__)
def test_the_detail_says_everything_by_name(error: VScanError) -> None:
    detail = to_detail(error)
    assert detail.name == type(error).__name__
    assert detail.trace_id == TRACE
    assert detail.retryable is error.retryable
    assert detail.HasField("retry_delay_ms") is isinstance(error, ResourceExhausted)


@pytest.mark.parametrize("error", [StartupError("no such file /etc/key"), CheckpointError("half a checkpoint")])
def test_an_error_of_the_start_never_travels(error: StartupError) -> None:
    with pytest.raises(TypeError):
        to_status(error)


def test_generic_clients_find_googles_own_details() -> None:
    retry, bad = error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    exhausted = status_pb2.Status.FromString(to_status(EXAMPLES[ResourceExhausted]))
    assert exhausted.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert exhausted.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500
    invalid = status_pb2.Status.FromString(to_status(EXAMPLES[InvalidArgument]))
    assert invalid.message == "messages[1].parts[0].image: 1,600 MP, limit 50 MP"
    assert invalid.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "messages[1].parts[0].image"


@given(
    field=st.text(min_size=1, max_size=20, alphabet=st.characters(categories=["L", "N"])),
    problem=st.text(min_size=1, max_size=60, alphabet=st.characters(categories=["L", "N", "P"])),
    limit=st.text(max_size=20, alphabet=st.characters(categories=["L", "N"])),
)
def test_any_bad_field_travels_whole(field: str, problem: str, limit: str) -> None:
    error = InvalidArgument(field, problem, limit=limit)
    assert vars(there_and_back(error)) == vars(error)


@given(text=st.text(max_size=3000))
def test_a_message_is_one_line_of_bounded_length(text: str) -> None:
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert len(line) <= MAX_MESSAGE_CHARS


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
def test_every_status_without_details_means_an_error(code: grpc.StatusCode) -> None:
    error = error_from_rpc(as_rpc_error(code, "from a proxy"))
    assert type(error) is not VScanError
    assert "from a proxy" in str(error)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.UNIMPLEMENTED, FailedPrecondition),
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
    ],
)
def test_a_status_without_details(code: grpc.StatusCode, expected: type[VScanError]) -> None:
    assert type(error_from_rpc(as_rpc_error(code, ""))) is expected


@pytest.mark.parametrize("words", ["CANCELLED", "", "Received RST_STREAM with error code 8"])
def test_a_call_that_its_server_or_a_proxy_cut_off_may_be_sent_again(words: str) -> None:
    assert type(error_from_rpc(as_rpc_error(grpc.StatusCode.CANCELLED, words))) is Unavailable


@pytest.mark.parametrize("words", ["Locally cancelled by application!", "Channel closed!"])
def test_a_call_that_its_own_caller_ended_is_cancelled(words: str) -> None:
    assert type(error_from_rpc(as_rpc_error(grpc.StatusCode.CANCELLED, words))) is Cancelled


def test_a_service_that_says_cancelled_means_it() -> None:
    said = to_status(Cancelled("the request was cancelled"))
    assert type(error_from_rpc(as_rpc_error(grpc.StatusCode.CANCELLED, "the request was cancelled", said))) is Cancelled


def test_googles_retry_info_alone_is_heeded() -> None:
    status, retry = status_pb2.Status(code=8), error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(777)
    status.details.add().Pack(retry)
    error = error_from_rpc(as_rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", status.SerializeToString()))
    assert isinstance(error, ResourceExhausted)
    assert error.retry_delay_ms == 777


def test_an_error_of_a_newer_service_falls_back_to_its_status() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
    status.details.add().Pack(errors_pb2.ErrorDetail(name="NewInV2", trace_id=TRACE))
    error = error_from_rpc(as_rpc_error(grpc.StatusCode.UNAVAILABLE, "new", status.SerializeToString()))
    assert isinstance(error, Unavailable)
    assert error.trace_id == TRACE


def test_a_name_of_an_error_that_never_travels_is_not_obeyed() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0])
    status.details.add().Pack(errors_pb2.ErrorDetail(name="StartupError"))
    assert type(error_from_rpc(as_rpc_error(grpc.StatusCode.INTERNAL, "x", status.SerializeToString()))) is InternalError


@pytest.mark.parametrize(
    "trailer",
    [
        b"\xff\xff\xff",
        status_pb2.Status(details=[any_pb2.Any(type_url="type.googleapis.com/other.Thing", value=b"x")]).SerializeToString(),
        status_pb2.Status(
            details=[any_pb2.Any(type_url="type.googleapis.com/vscan.v1.ErrorDetail", value=b"\xff")]
        ).SerializeToString(),
        b"",
    ],
)
def test_a_broken_or_foreign_trailer_leaves_the_status_to_speak(trailer: bytes) -> None:
    assert isinstance(error_from_rpc(as_rpc_error(grpc.StatusCode.UNAVAILABLE, "away", trailer)), Unavailable)


def test_a_message_over_the_size_limit_is_a_bad_request_and_no_reason_to_wait() -> None:
    text = "SERVER: Received message larger than max (5000000 vs. 4194304)"
    error = error_from_rpc(as_rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
    assert isinstance(error, InvalidArgument)
    assert str(error) == "request: message of 5,000,000 bytes, limit 4,194,304 bytes"
    assert not error.retryable
