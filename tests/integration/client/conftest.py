"""A scripted deployment for each test."""

from collections.abc import Iterator

import pytest

from tests.support.client_decoder import ScriptedDeployment, serving


@pytest.fixture
def deployment() -> ScriptedDeployment:
    """What the server does and has seen."""
    return ScriptedDeployment()


@pytest.fixture
def address(deployment: ScriptedDeployment) -> Iterator[str]:
    """Where it listens."""
    with serving(deployment) as address:
        yield address
