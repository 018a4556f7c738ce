"""A collector as a process: `python -m tests.faults.collector PORT FILE`. It writes down what it has got, and its clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.otlp_collector import OtlpCollector
from tests.support.redis_server import RedisServer, free_port

_EVERY_SECONDS = 0.1


class CollectorProcess(RedisServer):
    """Starts, stops, freezes and dies as a Redis of the tests does; always on the same port."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        super().__init__(program=sys.executable, environment=environment)
        self.port = free_port()
        self._file = folder / "collector.json"

    def command(self) -> list[str]:
        """The command line that starts it."""
        return [self.program, "-m", "tests.faults.collector", str(self.port), str(self._file)]

    def state(self) -> dict[str, Any]:
        """`spans` since its start, and `clock`: the time that it takes it to be."""
        state: dict[str, Any] = json.loads(self._file.read_text())
        return state

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        while not (self._file.is_file() and self.state()["pid"] == process.pid):
            if process.poll() is not None:
                raise RuntimeError(f"the collector ended with {process.returncode}")
            time.sleep(0.05)


def main(port: int, file: Path) -> None:
    """Serves until it is ended."""
    spans = 0
    partial = file.with_suffix(".partial")
    with OtlpCollector(port) as collector:
        while True:
            spans += len(collector.spans)
            collector.clear()
            partial.write_text(json.dumps({"spans": spans, "clock": time.time(), "pid": os.getpid()}))
            partial.replace(file)
            time.sleep(_EVERY_SECONDS)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
