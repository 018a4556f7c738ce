"""What of this machine a build may use: its mirror of Debian, and how its pip finds packages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.images.layers import Layers, Machine, run

SUITE = "bookworm"
_ANY_MIRROR = "http://deb.debian.org/debian"
_NOT_PASSED = {"constraint"}  # a build has its own


def bare_debian(layers: Layers) -> Path:
    """A system as `debian:bookworm-slim` begins with: the smallest that has apt, of this machine's mirror.

    mmdebstrap makes the same as debootstrap in half the time.
    """
    root = layers.new("debian")
    run(["mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", SUITE, str(root), _mirror()])
    for name in ("resolv.conf", "hosts"):
        (root / "etc" / name).touch()  # to mount over
    return root


def _mirror() -> str:
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", f"Codename: {SUITE}", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    return next(iter(told.stdout.splitlines()), _ANY_MIRROR)


def this_machine() -> Machine:
    """Its pip's configuration as variables, with the folders and the certificates that it names at other places."""
    said = run([sys.executable, "-m", "pip", "config", "list"])
    shown: dict[Path, str] = {}
    variables: dict[str, str] = {}
    for line in sorted(said.splitlines(), key=lambda line: not line.startswith("global")):  # `:env:` wins over files
        name, _, value = line.partition("=")
        option = name.rpartition(".")[2]
        if option not in _NOT_PASSED:
            words = value.strip("'\"").split()
            variables[f"PIP_{option.upper().replace('-', '_')}"] = " ".join(_shown(word, shown) for word in words)
    return Machine(shown, variables)


def _shown(word: str, shown: dict[Path, str]) -> str:
    """A word of the configuration; a path in it is shown to the build, and the word names where."""
    scheme = "file://" if word.startswith("file://") else ""
    path = Path(word.removeprefix(scheme))
    if not path.is_absolute() or not path.exists():
        return word
    # An index has links to files beside its pages.
    top = path.parent if scheme else path
    there = shown.setdefault(top, f"/run/machine/{len(shown)}{''.join(top.suffixes) if top.is_file() else ''}")
    return scheme + there + str(path)[len(str(top)) :]


def torch_index() -> str:
    """The index for torch of the build's test: `TORCH_INDEX_URL`, or none but what pip is configured with."""
    return os.environ.get("TORCH_INDEX_URL", "")
