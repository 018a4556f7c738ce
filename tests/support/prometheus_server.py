"""A real Prometheus on loopback, which scrapes and evaluates every second."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from tests.support.redis_server import free_port

PROGRAM = "/usr/bin/prometheus"
_START_SECONDS = 60.0


class QueryFailed(Exception):
    """Prometheus does not understand a query, or cannot answer it."""


class PrometheusServer:
    """Runs while its context lasts. `config`: as of a file, its rule files relative to `beside`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], beside: Path) -> None:
        quick = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        rules = [str(beside / name) for name in config.get("rule_files", [])]
        self._folder = folder
        self._config = {**config, "global": quick, "rule_files": rules}
        self._url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config))
        listen = self._url.removeprefix("http://")
        command = [PROGRAM, f"--config.file={config}", f"--storage.tsdb.path={self._folder / 'data'}"]
        with (self._folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen([*command, f"--web.listen-address={listen}"], stdout=log, stderr=log)
        self._wait_ready()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=_START_SECONDS)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant vector: `metric` (labels) and `value` (time, text). Raises QueryFailed."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health, its last error and, of an alert, its state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, what: str, **parameters: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=30) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise QueryFailed(json.load(error)["error"]) from error

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus did not start:\n{(self._folder / 'prometheus.log').read_text()[-4000:]}")
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=10):
                return True
        except OSError:
            return False
