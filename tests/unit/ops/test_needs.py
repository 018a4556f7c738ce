"""What the machine lacks is said before anything is downloaded, each piece with the command that installs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.protos import ROOT

CHECK = ROOT / "scripts" / "check_needs.sh"
SHELL = shutil.which("sh") or "/bin/sh"
# The interpreter that this environment was made with: it has venv and ensurepip.
PYTHON = str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")


class Machine:
    """A PATH with the programs that a test puts there, and no others."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder
        self.put("uname", 'if [ "$1" = -m ]; then echo x86_64; else echo Linux; fi')
        self.put("apt-get")

    def put(self, name: str, body: str = "exit 0") -> None:
        """Adds a small program."""
        program = self._bin / name
        program.write_text(f"#!{SHELL}\n{body}\n")
        program.chmod(0o755)

    def run(self, *command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command that sees this PATH alone."""
        return subprocess.run(
            command, cwd=cwd, env={"PATH": str(self._bin), **variables}, capture_output=True, text=True, check=False
        )

    def check(self, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs the check."""
        return self.run(SHELL, str(CHECK), *options, cwd=ROOT, **variables)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Machine(folder)


def test_a_bare_machine_is_told_everything(machine: Machine) -> None:
    done = machine.check()
    assert done.returncode == 1
    assert done.stdout == ""
    assert "  git: apt-get install -y git\n" in done.stderr
    assert "  make: apt-get install -y make\n" in done.stderr
    assert "  Python 3.11 or 3.12 with venv: " in done.stderr
    assert "All at once, as root: apt-get update && apt-get install -y git make" in done.stderr


def test_a_machine_with_everything_hears_nothing(machine: Machine) -> None:
    machine.put("git")
    machine.put("make")
    done = machine.check(PYTHON=PYTHON)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.check("--python", PYTHON=PYTHON).stdout == f"{PYTHON}\n"
    assert machine.check("--packages", PYTHON=PYTHON).stdout == "\n"


def test_one_missing_piece_is_the_only_one_named(machine: Machine) -> None:
    machine.put("make")
    done = machine.check(PYTHON=PYTHON)
    assert done.returncode == 1
    assert machine.check("--packages", PYTHON=PYTHON).stdout == "git\n"
    assert "make:" not in done.stderr
    assert "Python" not in done.stderr


def test_stubs_and_other_versions_are_passed_over(machine: Machine) -> None:
    machine.put("python3", "echo 'no such version' >&2; exit 127")  # as a version manager leaves it
    machine.put("python3.12", f'exec {PYTHON} -c "import sys; sys.exit(1)"')  # as a Python of another version answers
    machine.put("python3.11", f'exec {PYTHON} "$@"')
    assert machine.check("--python").stdout.endswith("/bin/python3.11\n")


def test_a_python_without_venv_needs_only_that(machine: Machine) -> None:
    machine.put("python3", f'case "$2" in "import venv"*) exit 1 ;; esac; exec {PYTHON} "$@"')
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"  venv and ensurepip for Python {version}: apt-get install -y python{version}-venv\n" in machine.check().stderr


def test_elsewhere_than_on_x86_64_redis_is_needed_too(machine: Machine) -> None:
    machine.put("git")
    machine.put("make")
    machine.put("uname", 'if [ "$1" = -m ]; then echo aarch64; else echo Linux; fi')
    assert "  redis-server: apt-get install -y redis-server\n" in machine.check(PYTHON=PYTHON).stderr
    machine.put("redis-server")
    assert machine.check(PYTHON=PYTHON).returncode == 0


def test_another_system_is_refused(machine: Machine) -> None:
    machine.put("uname", 'if [ "$1" = -m ]; then echo x86_64; else echo Darwin; fi')
    assert "  Linux: this is Darwin, which is not supported\n" in machine.check(PYTHON=PYTHON).stderr


def test_make_venv_checks_before_it_begins(machine: Machine, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "scripts", copy / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, copy)
    machine.put("sh", f'exec {SHELL} "$@"')
    make = shutil.which("make")
    assert make
    done = machine.run(make, "venv", "SHELL=" + SHELL, cwd=copy)
    assert done.returncode != 0
    assert "git: apt-get install -y git" in done.stderr
    assert not (copy / ".venv").exists()
