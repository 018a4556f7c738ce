"""Checks that everything the services install has a licence that lets them be shipped.

    python -m scripts.licences

Looks at the installed distributions that the extras `serve`, `otel`, `gateway` and `page` need, and what those need. Exit code
1 for one without a licence, or with one that is not on the list.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

PROJECT, EXTRAS = "vscan-serve", frozenset({"serve", "otel", "gateway", "page"})
# Each lets anyone use, change and ship, beside code under other licences.
ALLOWED = frozenset(
    {
        *("0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-CMU"),
        *("PSF-2.0", "Zlib", "LLVM-exception"),
    }
)
# Why it is taken all the same.
EXCEPTIONS = {
    ("tqdm", "MPL-2.0"): "a change to its own files must be published; it is used as it is, and changes nothing of ours",
}
# What distributions without an expression call theirs, in the field or in a classifier.
_CALLED = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
}


def main() -> int:
    """Prints what is wrong; returns the exit code."""
    names = closure(PROJECT, EXTRAS)
    problems = [problem for name in names if (problem := problem_of(name, licences(metadata.metadata(name))))]
    print("\n".join(problems) or f"{len(names)} distributions, each with a licence on the list")
    return 1 if problems else 0


def closure(project: str, extras: frozenset[str]) -> list[str]:
    """What is installed because of it, itself included."""
    wanted, seen = [(project, extras)], dict[str, frozenset[str]]()
    while wanted:
        name, asked = wanted.pop()
        known = seen.get(name)
        if known is not None and asked <= known:
            continue
        seen[name] = asked | (known or frozenset())
        wanted.extend(_required(name, seen[name]))
    return sorted(seen)


def licences(about: metadata.PackageMetadata) -> list[str]:
    """The identifiers (SPDX) in a distribution's metadata: its expression, else its field, else its classifiers."""
    if "License-Expression" in about:
        return _identifiers(about["License-Expression"])
    field = about["License"].strip() if "License" in about else ""
    if field and "\n" not in field:
        return _identifiers(_CALLED.get(field, field))
    classifiers = [
        line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or () if line.startswith("License :: OSI")
    ]
    return [_CALLED.get(name, name) for name in classifiers]


def problem_of(name: str, found: list[str]) -> str:
    """Why it may not be shipped; empty if it may."""
    if not found:
        return f"{name}: no licence"
    other = [one for one in found if one not in ALLOWED and (name, one) not in EXCEPTIONS]
    return f"{name}: {', '.join(other)}" if other else ""


def _required(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for line in metadata.requires(name) or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield re.sub(r"[-_.]+", "-", need.name).lower(), frozenset(need.extras)


def _identifiers(expression: str) -> list[str]:
    """Of `A AND (B OR C WITH D)` all four: a choice counts as both, so that nothing is overlooked."""
    return [word for word in re.split(r"[\s()]+", expression) if word and word not in {"AND", "OR", "WITH"}]


if __name__ == "__main__":
    sys.exit(main())
