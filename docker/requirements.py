"""Prints what extras of the project need, one requirement a line: an image has a layer of that without the project's code.

python3 requirements.py serve >requirements.txt
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

_OWN_EXTRA = re.compile(r"vscan-serve\[(.+)\]")


def requirements(project: dict[str, object], *extras: str) -> Iterator[str]:
    """The base install's, and the extras'; extras of the project that they name are followed."""
    yield from list(project["dependencies"])  # type: ignore[call-overload]
    for extra in extras:
        yield from _of_extra(project["optional-dependencies"], extra)  # type: ignore[arg-type]


def _of_extra(extras: dict[str, list[str]], extra: str) -> Iterator[str]:
    for line in extras[extra]:
        own = _OWN_EXTRA.fullmatch(line)
        if own:
            for name in own[1].split(","):
                yield from _of_extra(extras, name)
        else:
            yield line


if __name__ == "__main__":
    described = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    print("\n".join(sorted(set(requirements(described, *sys.argv[1:])))))
