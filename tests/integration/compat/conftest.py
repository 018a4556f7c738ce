"""The tapes, and the services of this release that are tried with them, once for all tests of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.record import FOLDER
from tests.compat.tape import Tape

TAPES = sorted(FOLDER.glob("*/tape.json"))


@pytest.fixture(params=TAPES, ids=lambda path: path.parent.name)
def tape(request: pytest.FixtureRequest) -> Tape:
    """Each of the recorded releases."""
    path: Path = request.param
    return Tape.load(path)
