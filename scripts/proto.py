"""Keeps generated code and the snapshot of the contract in step with `proto/`: `python -m scripts.proto COMMAND`."""

from __future__ import annotations

import argparse
import sys

from scripts.contract_facts import extend_snapshot
from scripts.protos import ROOT, generate, load_descriptors, stale_files


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.proto", description=__doc__)
    parser.add_argument("command", choices=["generate", "check", "extend-snapshot"])
    command = parser.parse_args().command
    if command == "generate":
        generate(ROOT)
        return 0
    return _check() if command == "check" else _extend()


def _check() -> int:
    stale = stale_files()
    for name in stale:
        print(f"{name}: not what protoc makes of proto/ now; run `make proto`", file=sys.stderr)
    return 1 if stale else 0


def _extend() -> int:
    try:
        added = extend_snapshot(load_descriptors())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for fact in added:
        print(f"new: {fact}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
