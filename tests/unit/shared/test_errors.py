"""One tree of errors: each with a gRPC status, a line that may be shown, and copies of its own."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from vscan import errors
from vscan.errors import InvalidArgument, MissingImages, ResourceExhausted, StartupError, Unavailable, VScanError

SAMPLES: list[VScanError] = [
    InvalidArgument("image", "1,600 MP", limit="50 MP", trace_id="t"),
    MissingImages([b"a" * 32, b"b" * 32], field="images[1]"),
    ResourceExhausted("busy", retry_delay_ms=50),
    errors.FailedPrecondition("not so"),
    errors.PermissionDenied("no"),
    errors.Unauthenticated("who"),
    Unavailable("away"),
    errors.DeadlineExceeded("late"),
    errors.Cancelled("gone"),
    errors.InternalError("fault", trace_id="t"),
    StartupError("port in use"),
    errors.CheckpointError("half"),
]


def test_every_class_is_among_the_samples_and_in_the_drawing() -> None:
    classes = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, VScanError)}
    assert classes == {type(sample) for sample in SAMPLES} | {VScanError}
    assert errors.__doc__ is not None
    assert all(one.__name__ in errors.__doc__ for one in classes)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_each_has_a_status_and_one_line(error: VScanError) -> None:
    assert isinstance(error.status, StatusCode)
    assert error.status is not StatusCode.OK
    assert str(error) == error.message
    assert "\n" not in str(error)


def test_what_may_be_sent_again_says_so() -> None:
    assert {type(error).__name__ for error in SAMPLES if error.retryable} == {"ResourceExhausted", "Unavailable"}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_a_copy_is_equal_and_apart(error: VScanError) -> None:
    copy = error.copy()
    assert type(copy) is type(error)
    assert (copy.args, vars(copy), str(copy)) == (error.args, vars(error), str(error))
    copy.trace_id = "another"
    assert error.trace_id != "another"
    with pytest.raises(type(error)):
        raise copy
    assert error.__traceback__ is None


def test_a_bad_field_names_itself_its_problem_and_the_limit() -> None:
    assert str(InvalidArgument("image", "1,600 MP", limit="50 MP")) == "image: 1,600 MP, limit 50 MP"
    assert str(InvalidArgument("image", "not an image")) == "image: not an image"


def test_below_makes_the_path_longer_and_keeps_the_rest() -> None:
    error = InvalidArgument("image", "1,600 MP", limit="50 MP", trace_id="t").below("parts[0]").below("messages[1]")
    assert (error.field, error.problem, error.limit, error.trace_id) == ("messages[1].parts[0].image", "1,600 MP", "50 MP", "t")


def test_missing_images_are_counted_and_kept() -> None:
    error = MissingImages([b"a" * 32, b"b" * 32], field="images[1]")
    assert error.sha256 == (b"a" * 32, b"b" * 32)
    assert str(error) == "images[1]: 2 image(s) or video(s) named by a digest that is not cached; send the bytes"
