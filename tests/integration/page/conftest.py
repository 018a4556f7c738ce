"""A scripted deployment, and a page before it."""

from collections.abc import AsyncIterator, Iterator

import httpx2
import pytest

from tests.support.client_decoder import ScriptedDeployment, serving
from tests.support.pages import page_of


@pytest.fixture
def deployment() -> ScriptedDeployment:
    """What the decoder does and has seen."""
    return ScriptedDeployment()


@pytest.fixture
def address(deployment: ScriptedDeployment) -> Iterator[str]:
    """Where it listens."""
    with serving(deployment) as address:
        yield address


@pytest.fixture
async def page(address: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a page with small bounds."""
    bounds = {"max_files": 3, "max_upload_bytes": 4096, "max_question_chars": 100, "max_asks": 2}
    async with page_of(address, encoder_address=(address,), **bounds) as client:
        yield client
