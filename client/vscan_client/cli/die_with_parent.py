"""Run as a script: becomes a command that the kernel kills when its parent ends, however that ends.

    python die_with_parent.py PARENT_PID COMMAND [ARGUMENT...]

A launcher of its own, since code between fork and exec is not safe in a process that has threads.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; stays set across exec


def main() -> None:
    """Never returns."""
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before the kernel was told
        sys.exit("the parent has ended")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
