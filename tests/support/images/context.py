"""Which files of a folder a build sees: `.dockerignore`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path


class DockerIgnore:
    """The patterns of one file, in order: the last one that matches a path, or a folder that it is in, decides."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        patterns = [line for line in lines if line and not line.startswith("#")]
        self._rules = [(_regex(line.removeprefix("!")), line.startswith("!")) for line in patterns]
        self._kept_tops = {line[1:].partition("/")[0] for line in patterns if line.startswith("!")}

    def keeps(self, path: str) -> bool:
        """Whether a build sees it; `path` is relative, with slashes."""
        parts = path.split("/")
        above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        kept = True
        for pattern, keep in self._rules:
            if any(pattern.fullmatch(one) for one in above):
                kept = keep
        return kept

    def files(self, root: Path) -> Iterator[str]:
        """All files below `root` that a build sees, as relative paths, in order."""
        found = []
        for folder, folders, names in os.walk(root):
            here = Path(folder).relative_to(root)
            if here == Path():
                # A top folder of which nothing is kept need not be walked.
                folders[:] = [name for name in folders if self.keeps(name) or name in self._kept_tops or "*" in self._kept_tops]
            found += [path for name in names if self.keeps(path := (here / name).as_posix())]
        yield from sorted(found)


def _regex(pattern: str) -> re.Pattern[str]:
    """As Go's `filepath.Match`, with `**` for any number of folders."""
    clean = pattern.strip("/")
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", clean)
    means = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(means.get(part, re.escape(part)) for part in parts))
