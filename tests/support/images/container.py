"""A container without an engine: an image's view, read-only, an empty /tmp, no capability, in a network namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.images.build import Image
from tests.support.images.layers import BOUND, NAMESPACES, Layers, chroot, mount_view, prepare

_SECONDS = 120.0
_TMPFS = "mode=1777,nosuid,nodev,noexec"


class Container:
    """One process, its image's ENTRYPOINT, as the image's user and the first process of its own namespace.

    Args:
        layers: where its root is mounted.
        name: of its log.
        environment: beside the image's.
        run_in: a command that joins the network: `ip netns exec NAME`.
        shown: files and folders of this machine, read-only, to where they are inside, below /tmp.
    """

    def __init__(
        self,
        layers: Layers,
        image: Image,
        name: str,
        *,
        environment: Mapping[str, str] | None = None,
        run_in: Sequence[str] = (),
        shown: Mapping[Path, str] | None = None,
    ) -> None:
        self.image = image
        self.log = layers.folder / f"{name}.log"
        self._root = layers.new(name)
        self._environment = image.environment | dict(environment or {})
        self._run_in, self._shown = list(run_in), dict(shown or {})
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and does not wait."""
        entry = self.image.stage.last("ENTRYPOINT")
        assert entry is not None
        script = f"root={self._root}\n{mount_view(self.image.chain, '$root')}{prepare()}"
        # As an engine mounts them unless it is told otherwise: nothing there may be executed.
        script += f"mount -t tmpfs -o {_TMPFS},size=1g tmpfs $root/tmp\n"
        script += f"mount -t tmpfs -o {_TMPFS},size=64m tmpfs $root/dev/shm\n"
        for here, there in self._shown.items():
            script += f": >$root{there}\nmount --bind {here} $root{there}\nmount -o remount,bind,ro $root{there}\n"
        script += chroot(self._as_user(json.loads(entry.text)), {})
        with self.log.open("ab") as log:
            command = [*BOUND, *self._run_in, *NAMESPACES, "sh", "-euc", script]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def execute(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command beside it, as `docker exec` would."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--wd"]
        return subprocess.run([*inside, *self._as_user(command)], capture_output=True, text=True, timeout=_SECONDS, check=False)

    def is_healthy(self) -> bool:
        """What the image's HEALTHCHECK says."""
        check = self.image.stage.last("HEALTHCHECK")
        assert check is not None
        return self.execute(json.loads(check.text.partition(" CMD ")[2])).returncode == 0

    def wait_for(self, command: Sequence[str]) -> None:
        """Until a command inside ends well, while the container lives."""
        give_up = time.monotonic() + _SECONDS
        while (last := self.execute(command)).returncode:
            if self._process is None or self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{command} never ended well: {last.stderr}\n{self.log.read_text()[-4000:]}")
            time.sleep(0.2)

    def stop(self) -> int | None:
        """Tells it to end, as the image says; the exit code of its process."""
        if self._process is None:
            return None
        told = self.image.stage.last("STOPSIGNAL")
        assert told is not None
        if self._process.poll() is None:
            os.kill(self.pid, getattr(signal, told.text))
        try:
            return self._process.wait(timeout=_SECONDS)
        finally:
            self._process.kill()  # and with it, whatever it began
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        """Of its first process, seen from here."""
        if self._process is None:
            raise RuntimeError("it does not run")
        children = f"/proc/{self._process.pid}/task/{self._process.pid}/children"
        give_up = time.monotonic() + _SECONDS
        while not (found := Path(children).read_text().split()):
            if self._process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"it ended at once:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.01)
        return int(found[0])

    def _as_user(self, command: Sequence[str]) -> list[str]:
        user = self.image.stage.last("USER")
        assert user is not None
        uid, gid = user.text.split(":")
        bounds = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        return ["setpriv", *bounds, "env", "-i", *[f"{name}={value}" for name, value in self._environment.items()], *command]
