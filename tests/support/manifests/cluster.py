"""What a manifest's pods run, as processes on this machine: the same arguments and variables, other addresses."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path
from typing import Any

from tests.support.manifests.mounted import Mounts, moved_path
from tests.support.manifests.objects import Object, named, pod_of
from tests.support.redis_server import RedisServer, free_port
from tests.support.service_process import ServiceProcess, health_of
from vscan_client.cli.health import HttpHealthCheck


class PodRedis(RedisServer):
    """Redis with the arguments of its manifest, on a free loopback port, TLS or not as they say."""

    def __init__(self, objects: list[Object], mounts: Mounts, program: str | None = None) -> None:
        super().__init__(program=program)
        (self.container,) = pod_of(named(objects, "Deployment", "redis"))["containers"]
        self.places = mounts.places(objects, "redis")

    def command(self) -> list[str]:
        """The manifest's, but for where it listens."""
        arguments = [moved_path(argument, self.places) for argument in self.container["args"]]
        option = "--tls-port" if "--tls-port" in arguments else "--port"
        if option in arguments:
            arguments[arguments.index(option) + 1] = str(self.port)
            return [self.program, "--bind", "127.0.0.1", *arguments]
        return [self.program, "--bind", "127.0.0.1", option, str(self.port), *arguments]

    def probe(self, kind: str) -> list[str]:
        """A probe's command, asking this one."""
        program, *arguments = self.container[kind]["exec"]["command"]
        return [
            program,
            "-h",
            "127.0.0.1",
            "-p",
            str(self.port),
            *(moved_path(argument, self.places) for argument in arguments),
        ]

    def _answers(self) -> bool:
        return self._runs() if "--tls-port" in self.container["args"] else super()._answers()

    def _runs(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False


# Needs root: a root file system that cannot be written, but for the folder of temporary files.
_READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind / && exec "$@"'


class PodService(ServiceProcess):
    """Encoder, decoder or gateway with the variables of its manifest; it listens beyond loopback, as it does in a pod.

    Args:
        changes: variables that a single machine wants otherwise; None takes one away.
        read_only: with a root file system as the pod's, and the image's HOME.
    """

    def __init__(
        self,
        kind: str,
        objects: list[Object],
        mounts: Mounts,
        folder: Path,
        changes: dict[str, Any] | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.port, self.health_port, self.metrics_port = free_port(), free_port(), free_port()
        prefix = f"VSCAN_{kind.upper()}_"
        self._objects = objects
        variables = mounts.environment(objects, kind)
        here = {f"{prefix}HEALTH_BIND": self.health_port, f"{prefix}METRICS_BIND": self.metrics_port}
        variables |= {name: f"0.0.0.0:{port}" for name, port in here.items() if name in variables}
        for name, value in (changes or {}).items():
            variables.pop(prefix + name, None)
            if value is not None:
                variables[prefix + name] = str(value)
        temporary = tempfile.gettempdir()
        run_in = ["unshare", "--mount", "sh", "-c", _READ_ONLY, temporary] if read_only else []
        variables |= {"HOME": temporary} if read_only else {}
        super().__init__(kind, folder, {"bind": f"0.0.0.0:{self.port}"}, environment=variables, run_in=run_in)

    def wait_ready(self) -> None:
        """Waits until it is ready, as kubelet would ask it."""
        self.wait_until(lambda: self.passes("readinessProbe"), "be ready")
        self.address = f"127.0.0.1:{self.port}"

    def passes(self, probe: str) -> bool:
        """What kubelet would find, which shows no certificate and looks at none."""
        (container,) = pod_of(named(self._objects, "Deployment", self.kind))["containers"]
        asked = container[probe]
        if "grpc" in asked:
            return health_of(f"127.0.0.1:{self.health_port}", asked["grpc"].get("service", ""))[0]
        http = asked["httpGet"]
        url = f"{http['scheme'].lower()}://127.0.0.1:{self.port}{http['path']}"
        with HttpHealthCheck(url, timeout_s=asked["timeoutSeconds"]) as check:
            return check.is_serving()
