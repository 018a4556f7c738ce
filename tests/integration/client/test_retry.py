"""What is sent again, and what is not."""

import pytest

from tests.support.client_decoder import ScriptedDeployment, serving
from vscan.errors import InternalError, InvalidArgument, ResourceExhausted, Unavailable, VScanError
from vscan_client import Client, Retry, TextDelta, Timeout

SWIFT = Retry(attempts=3, backoff_ms=1, max_backoff_ms=2)


@pytest.mark.parametrize("error", [Unavailable("stopping"), ResourceExhausted("full", retry_delay_ms=1)])
def test_a_question_is_asked_again_before_anything_came(
    deployment: ScriptedDeployment, address: str, error: VScanError
) -> None:
    deployment.fail_with = [error, error]
    with Client(server=address, retry=SWIFT) as client:
        answer = client.ask(b"cat", "what?")
    assert (answer.text, answer.client.attempts) == ("1 image(s): what?", 3)
    assert answer.client.sent_bytes == sum(deployment.sizes)


def test_a_question_that_a_stopping_server_never_began_is_asked_again(deployment: ScriptedDeployment, address: str) -> None:
    deployment.drop = 1
    with Client(server=address, retry=SWIFT) as client:
        assert client.ask(b"cat", "what?").client.attempts == 2


def test_tries_are_bounded(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_with = [Unavailable("stopping")] * 5
    with Client(server=address, retry=SWIFT) as client, pytest.raises(Unavailable, match="stopping"):
        client.ask(b"cat", "what?")
    assert len(deployment.requests) == 3


@pytest.mark.parametrize("error", [InvalidArgument("sampling.temperature", "-1", limit="0 to 2"), InternalError("oops")])
def test_a_question_that_cannot_succeed_is_asked_once(deployment: ScriptedDeployment, address: str, error: VScanError) -> None:
    deployment.fail_with = [error]
    with Client(server=address, retry=SWIFT) as client, pytest.raises(type(error)):
        client.ask(b"cat", "what?")
    assert len(deployment.requests) == 1


def test_nothing_is_asked_again_once_text_was_delivered(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_after_first_text = Unavailable("stopping")
    seen: list[str] = []
    with Client(server=address, retry=SWIFT) as client:
        stream = client.stream(b"cat", "what?")
        with pytest.raises(Unavailable, match="stopping"):
            seen.extend(event.text for event in stream if isinstance(event, TextDelta))
        with pytest.raises(RuntimeError, match="not whole"):
            _ = stream.answer
    assert len(deployment.requests) == 1


def test_the_servers_delay_is_not_waited_for_beyond_the_deadline(deployment: ScriptedDeployment, address: str) -> None:
    deployment.fail_with = [ResourceExhausted("full", retry_delay_ms=60_000)]
    with Client(server=address, timeout=Timeout(total=30)) as client, pytest.raises(ResourceExhausted) as caught:
        client.ask(b"cat", "what?")
    assert caught.value.retry_delay_ms == 60_000


def test_describe_is_asked_again_too(deployment: ScriptedDeployment, address: str) -> None:
    deployment.describe_fails_with = [Unavailable("starting")]
    with Client(server=address, retry=SWIFT) as client:
        assert client.describe().decoder.model == "scripted"


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with serving(ScriptedDeployment()) as address:
        pass  # gone again: the port is free now
    with Client(server=address, retry=SWIFT) as client, pytest.raises(Unavailable):
        client.ask(b"cat", "what?")


def test_a_server_that_comes_back_is_found_again(deployment: ScriptedDeployment) -> None:
    patient = Retry(attempts=100, backoff_ms=20, max_backoff_ms=100, budget=100)
    with serving(deployment) as address:
        client = Client(server=address, retry=patient)
        client.ask(b"cat", "what?")
    with client, serving(deployment, port=int(address.rpartition(":")[2])):
        assert client.ask(b"cat", "again?").text == "1 image(s): again?"
