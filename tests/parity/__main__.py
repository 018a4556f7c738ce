"""Runs parity cases through the real services, over gRPC.

    python -m tests.parity [--checkpoints DIR] [--cases DIR] [--kind NAME …] [--json FILE] [--dump DIR]

Without a folder the cases of this repository are run, each with its own settings; a pair of services is started for each set of
settings that are fixed at start (checkpoint, scan layers, window, pruning layers). Kept sets and greedy ids must agree exactly,
visual tokens and the top-5 log-probabilities to 1e-3. A case is called TIE that is off only where a dropped token is equally
similar to two kept ones: float32 does not say into which it goes, and what follows differs. Exit codes: 0 all cases agree, 1
one does not (nor does a TIE), 2 no case or one that cannot be run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.parity.case import Case, Deployment, UnknownCase, kind_of
from tests.parity.compare import Verdict, compare, dump
from tests.parity.served import ask, deployed
from vscan.errors import VScanError

DATA = Path(__file__).parents[1] / "data" / "parity"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases and reports; returns the exit code."""
    options = _parser().parse_args(arguments)
    options.cases = options.cases or options.checkpoints / "expected"
    try:
        cases = _load(options.cases, options.checkpoints, options.kind)
        verdicts = list(_run(cases, options.dump))
    except (UnknownCase, VScanError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps([verdict.to_json() for verdict in verdicts], indent=1) + "\n")
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoints", type=Path, default=DATA, help="folder with the checkpoint directories")
    parser.add_argument(
        "--cases", type=Path, help="folder with CASE.json and CASE.safetensors; `expected` among the checkpoints if not given"
    )
    parser.add_argument("--kind", nargs="+", metavar="NAME", help="only cases of these checkpoints")
    parser.add_argument("--json", type=Path, help="write a verdict for each case here")
    parser.add_argument("--dump", type=Path, help="write what came over gRPC here, in the layout of the cases")
    return parser


def _load(folder: Path, checkpoints: Path, kinds: Sequence[str] | None) -> list[Case]:
    paths = [path for path in sorted(folder.glob("*.json")) if kinds is None or kind_of(path) in kinds]
    if not paths:
        chosen = "" if kinds is None else f" of {', '.join(kinds)}"
        raise UnknownCase(f"no case{chosen} in {folder}")
    return [Case.load(path, checkpoints) for path in paths]


def _run(cases: Sequence[Case], dump_folder: Path | None) -> Iterator[Verdict]:
    by_deployment: dict[Deployment, list[Case]] = defaultdict(list)
    for case in cases:
        by_deployment[case.deployment].append(case)
    for deployment, group in by_deployment.items():
        with deployed(deployment) as stack:
            for case in group:
                served = ask(case, stack)
                if dump_folder is not None:
                    dump(case, served, dump_folder)
                verdict = compare(case, served)
                print(_line(verdict), flush=True)
                yield verdict


def _line(verdict: Verdict) -> str:
    tokens = verdict.visual_tokens_max_abs
    row = "" if verdict.worst_row is None else f" in row {verdict.worst_row}"
    return (
        f"{'ok  ' if verdict.ok else 'TIE ' if verdict.tie else 'FAIL'} {verdict.case}: "
        f"kept {'same' if verdict.kept else 'DIFFER'}, "
        f"visual tokens {'not stated' if tokens is None else f'{tokens:.1e}{row}'}, "
        f"ids {'same' if verdict.ids else 'DIFFER'}, top-5 log-probabilities {verdict.top5_logprobs:.1e}"
    )


if __name__ == "__main__":
    sys.exit(main())
