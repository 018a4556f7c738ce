"""The wheel of the project, and virtual environments that have it and what it declares, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
METADATA_FILES = ["pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]]
_LIBRARIES = Path(sysconfig.get_path("purelib"))


def package_folder(package: str) -> Path:
    """Where a declared package is in the tree, relative to its root."""
    top, _, rest = package.partition(".")
    folder = PROJECT["tool"]["setuptools"]["package-dir"].get(top, top)
    return Path(folder, *rest.split(".")) if rest else Path(folder)


def build_wheel(work: Path) -> Path:
    """Builds from a copy of the sources: a build in the tree itself would ship what an earlier build left there."""
    copy = work / "source"
    copy.mkdir(parents=True)
    for name in METADATA_FILES:
        shutil.copy2(ROOT / name, copy)
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        if "." not in package:
            folder = package_folder(package)
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(work / "dist"), str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = (work / "dist").glob("*.whl")
    return wheel


def files_in_wheel(wheel: Path) -> set[str]:
    """Paths of the packages' files, without the wheel's own records."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


class Environment:
    """A virtual environment with the wheel, and with what the wheel requires, taken from this environment's libraries.

    Only the distributions that the wheel requires, directly and through others, are put there, as links: no network is
    needed, and what is not declared is missing.

    Args:
        folder: where to make it.
        wheel: what to install.
        extras: of the project.
    """

    def __init__(self, folder: Path, wheel: Path, *, extras: frozenset[str] = frozenset()) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.folder = folder
        self.libraries = folder / _LIBRARIES.relative_to(sys.prefix)
        pip = [sys.executable, "-m", "pip", "--python", str(self.program("python"))]
        subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
        installed = next(iter(Distribution.discover(name=PROJECT["project"]["name"], path=[str(self.libraries)])))
        for name in sorted(_required(installed, extras)):
            self._link(distribution(name))

    def program(self, name: str) -> Path:
        """A program of the environment."""
        return self.folder / "bin" / name

    def run(self, *command: str | Path, cwd: Path, timeout_seconds: float = 120) -> str:
        """Runs a program of the environment to its end and returns what it printed; it must succeed."""
        name, *arguments = map(str, command)
        done = subprocess.run(
            [str(self.program(name)), *arguments],
            cwd=cwd,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        assert done.returncode == 0, f"{name} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def variables(self) -> dict[str, str]:
        """The environment variables of a user who activated it: none of the checkout's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "VSCAN_"))}
        return {**kept, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def _link(self, wanted: Distribution) -> None:
        for file in wanted.files or ():
            source, target = _LIBRARIES / file, self.libraries / file
            if ".." in file.parts or target.exists() or not source.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(source)


def _required(root: Distribution, extras: frozenset[str]) -> set[str]:
    """Names of all distributions that `root` with these extras requires, directly or through others."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(root, extras)]
    while waiting:
        owner, wanted_extras = waiting.pop()
        for line in owner.requires or ():
            requirement = Requirement(line)
            if not _applies(requirement, wanted_extras):
                continue
            key = (_normal(requirement.name), frozenset(requirement.extras))
            if key not in seen:
                seen.add(key)
                waiting.append((root if key[0] == _normal(root.name) else distribution(key[0]), key[1]))
    return {name for name, _ in seen} - {_normal(root.name)}


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
