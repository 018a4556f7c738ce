"""Every error of the tree arrives as itself."""

import pytest

from tests.support.client_decoder import ScriptedDeployment
from vscan.errors import (
    Cancelled,
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
from vscan_client import Client, Image, Retry

ONE_OF_EACH: list[VScanError] = [
    InvalidArgument("sampling.temperature", "-1", limit="0 to 2"),
    FailedPrecondition("the encoder does not pair"),
    MissingImages([bytes(32)], field="messages[0].parts[0].image"),
    PermissionDenied("raw prompts are not allowed here"),
    Unauthenticated("no identity"),
    ResourceExhausted("the queue is full", retry_delay_ms=40),
    Unavailable("stopping"),
    DeadlineExceeded("too late"),
    Cancelled("gave up"),
    InternalError("internal error", trace_id="0af7651916cd43dd8448eb211c80319c"),
]


def tree(root: type[VScanError]) -> set[type[VScanError]]:
    """A class and all below it."""
    return {root}.union(*(tree(below) for below in root.__subclasses__()))


def test_none_is_forgotten() -> None:
    never_on_the_wire = {VScanError} | tree(StartupError)
    of_the_project = {error for error in tree(VScanError) if error.__module__ == "vscan.errors"}
    assert {type(error) for error in ONE_OF_EACH} == of_the_project - never_on_the_wire


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_it_arrives_whole(deployment: ScriptedDeployment, address: str, error: VScanError) -> None:
    deployment.fail_with = [error]
    with Client(server=address, retry=Retry(attempts=1)) as client, pytest.raises(VScanError) as caught:
        client.ask(Image.from_digest(bytes(32)), "what?")
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    told, meant = vars(caught.value), vars(error)
    assert told == meant
