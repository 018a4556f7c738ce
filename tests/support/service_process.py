"""A service as a process of its own, started as users start it: `python -m …` with settings in the environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

START_SECONDS = 120.0
SERVICES = {"encoder": "vscan.v1.VisionEncoder", "decoder": "vscan.v1.Decoder"}


class ServiceProcess:
    """`kind` is "encoder" or "decoder". Binds a free loopback port at the first start and keeps it at later ones."""

    def __init__(
        self,
        kind: str,
        folder: Path,
        settings: dict[str, Any] | None = None,
        *,
        environment: dict[str, str] | None = None,
        run_in: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.settings = dict(settings or {})
        self.address = ""
        self.log = folder / f"{kind}.log"
        self._environment = environment or {}
        self._run_in = list(run_in)  # a command that runs it somewhere else: `ip netns exec NAME`
        self._ready_file = folder / f"{kind}.address"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def runs(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it and waits until its port is open."""
        self.launch()
        self.wait_until(self._ready_file.is_file, "open its port")
        self.address = self._ready_file.read_text().strip()

    def launch(self) -> None:
        """Starts it and does not wait."""
        self._ready_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            command = [*self._run_in, sys.executable, "-m", f"{self.kind}_service"]
            self._process = subprocess.Popen(command, env=self._variables(), stdout=log, stderr=subprocess.STDOUT)

    def wait_ready(self) -> None:
        """Waits until its health says so."""
        self.wait_until(self._ready_file.is_file, "open its port")
        self.address = self._ready_file.read_text().strip()
        self.wait_until(lambda: health_of(self.address, SERVICES[self.kind])[0], "be ready")

    def stop(self) -> int | None:
        """Ends it in order, if it runs. Returns the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._end(signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        if self._process is None:
            raise RuntimeError(f"the {self.kind} does not run")
        return self._process.pid

    def pause(self) -> None:
        """Freezes it: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kills it and starts it again at the same address; not waiting for it to be ready."""
        self.kill()
        self.start()

    def _variables(self) -> dict[str, str]:
        settings = {"bind": self.address or "127.0.0.1:0", "ready_file": self._ready_file, **self.settings}
        prefix = f"VSCAN_{self.kind.upper()}_"
        own = {name: value for name, value in os.environ.items() if not name.startswith("VSCAN_")}
        return own | self._environment | {prefix + name.upper(): str(value) for name, value in settings.items()}

    def _end(self, how: signal.Signals) -> int | None:
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGCONT)  # a paused process would not hear SIGTERM
        self._process.send_signal(how)
        code = self._process.wait(timeout=START_SECONDS)
        self._process = None
        return code

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition while the process lives; `what` it does then, for the error."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the {self.kind} ended before it could {what}:\n{self.log.read_text()[-4000:]}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the {self.kind} did not {what} within {START_SECONDS:.0f} s")
            time.sleep(0.02)


def health_of(address: str, service: str) -> tuple[bool, str]:
    """Whether a service is serving, and why not where it says so."""
    with grpc.insecure_channel(address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            reply, call = check.with_call(health_pb2.HealthCheckRequest(service=service), timeout=10)
        except grpc.RpcError as error:
            return False, str(error)
        why = dict(call.trailing_metadata() or ()).get("vscan-not-ready", "")
        return reply.status == health_pb2.HealthCheckResponse.SERVING, str(why)
