"""Folders as layers of a file system, and commands in them: overlay mounts in namespaces that end with the command.

    view of (base, a, b)     lowerdir=b:a:base, read-only
    a command that changes   the same with an upper folder, which is the next layer

Needs root, `unshare` and `setpriv`. No mount outlives its command, but for the tmpfs of `Layers`, and no command this process.
The tmpfs that a process leaves behind when it is killed, the next one removes.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

Chain = tuple[Path, ...]  # from the base up
# Put before a command: it ends with the one that began it, however that ends.
BOUND = ("setpriv", "--pdeathsig", "KILL")
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LONGEST_SECONDS = 900
_PREFIX = "vscan-images-"  # and the number of the process
_AMPLE_GIB = (
    12  # then layers lie in memory, about 3 GiB of it: tens of thousands of files are written and removed there at once
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What of this machine commands may see while they build: files and folders, read-only, and variables.

    Attributes:
        shown: where each is here, to where it is there; all of these below /run/machine.
        variables: for the environment of RUN.
    """

    shown: Mapping[Path, str]
    variables: Mapping[str, str]


class Layers:
    """A folder of layers, removed with everything at the end."""

    def __init__(self) -> None:
        remove_what_was_left()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._count = 0

    def __enter__(self) -> Layers:
        self.folder.chmod(0o755)  # ordinary users live below it
        if _available_gib() >= _AMPLE_GIB or not self._overlay_works():
            run(["mount", "-t", "tmpfs", "-o", "size=8g,mode=755", "tmpfs", str(self.folder)])
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        _remove(self.folder)

    def new(self, name: str) -> Path:
        """An empty folder."""
        self._count += 1
        made = self.folder / f"{self._count:02}{name}"
        made.mkdir()
        return made

    def change(self, chain: Chain, script: str, machine: Machine | None = None) -> Chain:
        """Runs a shell script of this machine's with the view at `$root`, writable; the chain with what it changed on top."""
        upper, work, root = self.new("l"), self.new("w"), self.new("r")
        options = f"lowerdir={_lower(chain)},upperdir={upper},workdir={work}"
        try:
            run(
                [
                    *NAMESPACES,
                    "sh",
                    "-euc",
                    f"root={root}\nmount -t overlay -o {options} overlay $root\n{_inside(machine)}{script}",
                ]
            )
        finally:
            shutil.rmtree(work)
            root.rmdir()
        return (*chain, upper)

    def _overlay_works(self) -> bool:
        lower, upper, work, root = (self.new(name) for name in "luwr")
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        tried = subprocess.run(
            [*NAMESPACES, "mount", "-t", "overlay", "-o", options, "overlay", str(root)], capture_output=True, check=False
        )
        return tried.returncode == 0


def remove_what_was_left() -> list[Path]:
    """Removes the folders of processes that are no more, and what is mounted there; which ones."""
    found = [path for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*") if not _lives(path.name)]
    for folder in found:
        _remove(folder)
    return found


def mount_view(chain: Chain, root: str) -> str:
    """A line of shell that mounts the view of a chain, read-only."""
    return f"mount -t overlay -o lowerdir={_lower(chain)} overlay {root}\n"


def chroot(arguments: Sequence[str], environment: Mapping[str, str], folder: str = "/") -> str:
    """A line of shell that becomes a command in `$root`, with these variables and no others."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    inner = ["env", "-i", "-C", folder, *variables, *arguments]
    return f"exec chroot $root {shlex.join(inner)}\n"


def prepare(root: str = "$root") -> str:
    """Lines of shell that give a mounted view its /proc and the few devices that a container has."""
    lines = [f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=755 tmpfs {root}/dev", f"mkdir -m 1777 {root}/dev/shm"]
    lines += [f": >{root}/dev/{name} && mount --bind /dev/{name} {root}/dev/{name}" for name in _DEVICES]
    lines += [f"ln -s /proc/self/fd {root}/dev/fd"]
    return "\n".join(lines) + "\n"


def run(command: Sequence[str]) -> str:
    """What a command prints; its end of it all in the error where it fails."""
    done = subprocess.run(
        [*BOUND, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[-1][-1500:]}\nended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def _lives(name: str) -> bool:
    return Path("/proc", name.removeprefix(_PREFIX).partition("-")[0]).exists()


def _remove(folder: Path) -> None:
    if folder.is_mount():
        run(["umount", str(folder)])
    run(["rm", "-rf", "--one-file-system", str(folder)])


def _available_gib() -> int:
    (line,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable:")]
    return int(line.split()[1]) // 2**20


def _inside(machine: Machine | None) -> str:
    if machine is None:
        return ""
    lines = [prepare().rstrip(), "mount -t tmpfs tmpfs $root/run", "mkdir $root/run/machine"]
    for here, there in machine.shown.items():
        make = f"mkdir -p $root{there}" if here.is_dir() else f": >$root{there}"
        lines += [make, f"mount --bind {here} $root{there}", f"mount -o remount,bind,ro $root{there}"]
    for name in ("resolv.conf", "hosts"):
        lines += [f"mount --bind /etc/{name} $root/etc/{name}"]
    return "\n".join(lines) + "\n"


def _lower(chain: Chain) -> str:
    return ":".join(str(layer) for layer in reversed(chain))
