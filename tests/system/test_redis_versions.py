"""The cache's tests pass on both Redis releases: `make test` runs them on one of them, and here they run on the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.redis_server import redis_server_program
from tests.support.wheel import ROOT

pytestmark = pytest.mark.system

# Debian's, and the one that the wheel brings.
PROGRAMS = {"7": Path("/usr/bin/redis-server"), "6": Path(sys.executable).parent / "redis-server"}
OTHER = [major for major, program in PROGRAMS.items() if program.resolve() != Path(redis_server_program()).resolve()]


def test_one_of_them_is_what_the_other_tests_use() -> None:
    assert len(OTHER) == 1


@pytest.mark.parametrize("major", OTHER)
def test_the_cache_suite_passes(major: str, tmp_path: Path) -> None:
    # The tests take the first redis-server on the path.
    (tmp_path / "redis-server").symlink_to(PROGRAMS[major])
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    version = subprocess.run(["redis-server", "--version"], env=environment, check=True, capture_output=True, text=True).stdout
    assert f"v={major}." in version
    suite = [
        sys.executable,
        "-m",
        "pytest",
        "tests/integration/cache",
        "-m",
        "not system and not gpu",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(suite, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d+ passed in", done.stdout, re.MULTILINE), done.stdout
