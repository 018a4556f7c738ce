"""Holds the pinned versions against a kept export of advisories, where no database can be reached.

    python -m scripts.osv FOLDER [--pins FILE]

FOLDER has the advisories as JSON files in the OSV schema, as osv.dev exports them (its PyPI/all.zip, unpacked). Exit code 1
if one of the pinned versions is affected, 2 if the folder has no advisory: an empty database says nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

PINS = Path(__file__).parents[1] / "constraints.txt"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints each hit; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.osv", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pins", type=Path, default=PINS, help="file of NAME==VERSION lines")
    options = parser.parse_args(arguments)
    pinned = pins(options.pins.read_text())
    files = sorted(options.folder.glob("**/*.json"))
    if not files:
        print(f"{options.folder}: no advisory", file=sys.stderr)
        return 2
    hits = [hit for file in files for hit in affected(json.loads(file.read_text()), pinned)]
    print("\n".join(hits) or f"{len(pinned)} pinned versions, {len(files)} advisories, none of them affected")
    return 1 if hits else 0


def pins(text: str) -> dict[str, Version]:
    """The versions by normalised name."""
    found = re.findall(r"^([\w.-]+)==([\w.+!]+)", text, re.MULTILINE)
    return {_normal(name): Version(version) for name, version in found}


def affected(advisory: dict[str, Any], pinned: dict[str, Version]) -> Iterator[str]:
    """A line for each pinned version that an advisory is about."""
    if "withdrawn" in advisory:
        return
    for entry in advisory.get("affected", ()):
        package = entry.get("package", {})
        version = pinned.get(_normal(package.get("name", "")))
        if package.get("ecosystem") == "PyPI" and version is not None and _is_in(entry, version):
            yield f"{package['name']} {version}: {advisory['id']} {advisory.get('summary', '')}".rstrip()


def _is_in(entry: dict[str, Any], version: Version) -> bool:
    return str(version) in entry.get("versions", ()) or any(
        _is_between(ranged.get("events", ()), version)
        for ranged in entry.get("ranges", ())
        if ranged.get("type") == "ECOSYSTEM"
    )


def _is_between(events: Sequence[dict[str, str]], version: Version) -> bool:
    """Events are ascending: introduced, then fixed or last affected, perhaps again."""
    inside = False
    for event in events:
        if "introduced" in event and _version(event["introduced"]) <= version:
            inside = True
        if "fixed" in event and _version(event["fixed"]) <= version:
            inside = False
        if "last_affected" in event and _version(event["last_affected"]) < version:
            inside = False
    return inside


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
