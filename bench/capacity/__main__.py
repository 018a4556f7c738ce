"""The command line; see the package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import bench.capacity
from bench.capacity.commands import check, from_reports, measure, plan, simulate, validate
from bench.capacity.curve import NotMeasured

COMMANDS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "measure": (measure.options, measure.run),
    "from-reports": (from_reports.options, from_reports.run),
    "plan": (plan.options, plan.run),
    "simulate": (simulate.options, simulate.run),
    "validate": (validate.options, validate.run),
    "check": (check.options, check.run),
}


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done and all goals met, 1 a goal was not met, 2 wrong options, a wrong profile, or what is not measured."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.capacity",
        description=bench.capacity.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (options, run) in COMMANDS.items():
        command = commands.add_parser(
            name, help=(run.__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        options(command)
        command.set_defaults(run=run)
    parsed = parser.parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except (ValueError, OSError) as error:
        print(f"python -m bench.capacity {parsed.command}: {error}", file=sys.stderr)
        return 2
    except NotMeasured as error:
        print(f"python -m bench.capacity {parsed.command}: not measured: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
