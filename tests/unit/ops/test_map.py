"""The map names every package, and no page links to what is not there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
]


def tracked() -> list[Path]:
    """Every file under version control, relative to the root."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [Path(line) for line in listed.splitlines()]


def test_the_map_names_every_top_folder_and_every_package_that_is_shipped() -> None:
    files = tracked()
    folders = {path.parts[0] for path in files if len(path.parts) > 1} - {"client", "vscan", "proto"}
    packages = {path.parent for path in files if path.name == "__init__.py" and path.parts[0] not in {"tests", "scripts"}}
    packages -= {path for path in packages if path.parts[0] == "client"} | {
        Path("vscan"),
        Path("vscan/rpc"),
        Path("vscan/telemetry"),
    }
    text = (ROOT / "docs" / "structure.md").read_text()
    missing = [str(name) for name in sorted({*map(Path, folders), *packages}) if f"`{name}/" not in text]
    assert not missing, f"docs/structure.md does not name {missing}"


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    broken = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert not broken, f"{page} links to {broken}"
