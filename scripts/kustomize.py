"""Renders a folder of `k8s/` as `kubectl apply -k` would, by kubectl or kustomize, whose kustomize is 5 or newer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

LEAST_MAJOR = 5


class NoKustomize(RuntimeError):
    """Neither kubectl nor kustomize is at hand, or they are too old."""


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects that `kubectl apply -k` would send, the caller's own to change.

    Raises:
        NoKustomize: there is nothing to render with; `scripts/get_kubectl.py` gets it.
        ValueError: the folder is refused, with what kustomize said of it.
    """
    return [found for found in yaml.load_all(_rendered(folder.resolve()), _LOADER) if found is not None]


@cache
def command() -> tuple[str, ...]:
    """What renders the folder whose name follows."""
    for program, arguments in (("kubectl", ("kustomize",)), ("kustomize", ("build",))):
        path = _program(program)
        if path is not None and _major(path) >= LEAST_MAJOR:
            return (path, *arguments)
    raise NoKustomize(f"needs kubectl or kustomize, with kustomize {LEAST_MAJOR} or newer: python -m scripts.get_kubectl")


@cache
def _rendered(folder: Path) -> str:
    done = subprocess.run([*command(), str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{folder}: {done.stderr.strip()}")
    return done.stdout


def _program(name: str) -> str | None:
    """On the path, or beside the interpreter, where `scripts/get_kubectl.py` puts it."""
    beside = Path(sys.executable).parent / name
    return shutil.which(name) or (str(beside) if beside.is_file() else None)


def _major(program: str) -> int:
    arguments = ["version", "--client"] if Path(program).name == "kubectl" else ["version"]
    said = subprocess.run([program, *arguments], capture_output=True, text=True).stdout
    found = re.search(r"(?:Kustomize Version: |kustomize/|^)v(\d+)\.", said, re.MULTILINE)
    return int(found.group(1)) if found else 0


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
