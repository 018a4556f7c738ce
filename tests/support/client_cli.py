"""Runs the command line as a shell would see it."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass

from vscan_client.cli.main import main


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def one_line(self) -> str:
        """What it wrote on stderr, which must be one line."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


def vscan(*arguments: object) -> Ran:
    """Runs `vscan ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return Ran(code, out.getvalue(), err.getvalue())


def in_a_process(*arguments: object) -> list[str]:
    """The command that runs `vscan ARGUMENTS` in a process of its own."""
    program = "import sys; from vscan_client.cli.main import main; main(sys.argv[1:])"
    return [sys.executable, "-c", program, *map(str, arguments)]
