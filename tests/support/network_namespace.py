"""Another host, as far as the network is concerned: a namespace with an address of its own, joined to this one by a cable."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType


class NetworkNamespace:
    """Makes the namespace on entry and removes it on exit. Needs root and Debian's iproute2.

    Attributes:
        near_address: this side's end of the cable.
        far_address: the namespace's end.
    """

    def __init__(self) -> None:
        number = os.getpid()
        self.name = f"vscan-{number}"
        self._near_link, self._far_link = f"vsn{number}", f"vsf{number}"
        # 198.18.0.0/15 is set apart for tests of networks (RFC 2544); each process takes four addresses of it.
        block = 4 * (number % 2**14)
        self.near_address = f"198.18.{block // 256}.{block % 256 + 1}"
        self.far_address = f"198.18.{block // 256}.{block % 256 + 2}"

    @property
    def command(self) -> list[str]:
        """Put before a command, runs it inside."""
        return ["ip", "netns", "exec", self.name]

    def pull(self) -> None:
        """Pulls the cable out at the far end: what is sent is lost, and this side is not told."""
        self._ip("-n", self.name, "link", "set", self._far_link, "down")

    def plug(self) -> None:
        """Puts it back."""
        self._ip("-n", self.name, "link", "set", self._far_link, "up")

    def __enter__(self) -> NetworkNamespace:
        self._ip("netns", "add", self.name)
        try:
            self._join()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._remove()

    def _join(self) -> None:
        inside = ("-n", self.name)
        self._ip("link", "add", self._near_link, "type", "veth", "peer", "name", self._far_link, "netns", self.name)
        self._ip("addr", "add", f"{self.near_address}/30", "dev", self._near_link)
        self._ip("link", "set", self._near_link, "up")
        self._ip(*inside, "addr", "add", f"{self.far_address}/30", "dev", self._far_link)
        self._ip(*inside, "link", "set", self._far_link, "up")
        self._ip(*inside, "link", "set", "lo", "up")

    def _remove(self) -> None:
        self._ip("netns", "del", self.name)  # its end of the cable goes with it, and so the other one

    @staticmethod
    def _ip(*arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
