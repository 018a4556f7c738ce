"""A service's log, as the second witness: how each request ended on the server's side."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any


class RequestLog:
    """The JSON lines of one log file from a point on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._begin = self.size

    @property
    def size(self) -> int:
        """Bytes that the file has now."""
        return self._file.stat().st_size if self._file.exists() else 0

    def ends(self) -> Counter[str]:
        """How often each request that the decoder had accepted ended, by its id."""
        return Counter(line["request"] for line in self._lines() if line.get("method") == "Generate" and "request" in line)

    def clock_s(self) -> float:
        """The time of the last line: what the service takes it to be. 0 where there is none."""
        last = 0.0
        for line in self._lines():
            last = datetime.fromisoformat(line["time"]).timestamp()
        return last

    def count(self, words: str) -> int:
        """Lines with these words in their message."""
        return sum(words in line.get("message", "") for line in self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        with self._file.open("rb") as log:
            log.seek(self._begin)
            for line in log:
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # what a library prints, or a line that was cut by a full disk
                if isinstance(entry, dict) and "time" in entry:
                    yield entry
