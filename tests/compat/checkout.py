"""An earlier state of this repository in a folder of its own, to run its code with this environment's packages."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.protos import ROOT
from tests.support.service_process import ServiceProcess

_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Checkout:
    """Code to run: `name` for people, `root` its folder."""

    name: str
    root: Path

    def service(self, kind: str, folder: Path, settings: dict[str, Any]) -> ServiceProcess:
        """Its encoder or decoder, not yet started."""
        # `python -m` looks in the folder it is started in first.
        return ServiceProcess(kind, folder, settings, environment=self._environment, run_in=["env", "-C", str(self.root)])

    def run(self, script: Path, *arguments: str) -> str:
        """What a script prints that is run with its packages."""
        done = subprocess.run(
            ["env", "-C", str(self.root), "PYTHONSAFEPATH=1", *self._variables, sys.executable, str(script), *arguments],
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} with {self.name} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout

    @property
    def _environment(self) -> dict[str, str]:
        return {"PYTHONPATH": f"{self.root}:{self.root / 'client'}"}

    @property
    def _variables(self) -> list[str]:
        return [f"{name}={value}" for name, value in self._environment.items()]


HERE = Checkout("here", ROOT)


@contextmanager
def checkout(revision: str) -> Iterator[Checkout]:
    """The files of a commit, without touching the repository; gone at the end.

    Raises:
        ValueError: a revision that the repository does not have.
    """
    try:
        commit = _git("rev-parse", "--short=12", "--verify", f"{revision}^{{commit}}").decode().strip()
        packed = _git("archive", "--format=tar", commit)
    except subprocess.CalledProcessError as error:
        raise ValueError(f"{revision}: {error.stderr.decode().strip()}") from error
    with tempfile.TemporaryDirectory(prefix="vscan-compat-") as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        yield Checkout(commit, Path(folder))


def date_of(revision: str) -> str:
    """When a commit was made, `YYYY-MM-DD`."""
    return _git("show", "--no-patch", "--format=%cs", revision).decode().strip()


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
