"""What docs/security.md says is tested, is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = ("docs/security.md", "docs/limits.md")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def functions_of(file: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, functions)}


def test_every_test_that_is_named_exists() -> None:
    named = {match for page in PAGES for match in NAMED.findall((ROOT / page).read_text())}
    assert len(named) > 20
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or (name and name not in functions_of(ROOT / file))
    ]
    assert not missing


def test_every_published_fault_has_its_line() -> None:
    page = (ROOT / "docs/security.md").read_text()
    for name in functions_of(ROOT / "tests/e2e/test_published_faults.py"):
        if name.startswith("test_"):
            assert f"tests/e2e/test_published_faults.py::{name}`" in page, name
