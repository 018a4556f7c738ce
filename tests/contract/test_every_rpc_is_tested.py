"""Each method of each service is called by some test over gRPC."""

import ast
from pathlib import Path

import pytest

from scripts.protos import elements_of, load_descriptors

TESTS = Path(__file__).resolve().parent.parent
METHODS = [e.name for file in load_descriptors().file for e in elements_of(file) if e.kind == "method"]


def _names_in(path: Path) -> set[str]:
    """Every name and attribute that the code of a file uses; text and comments do not count."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return attributes | {node.id for node in nodes if isinstance(node, ast.Name)}


@pytest.mark.parametrize("method", METHODS)
def test_some_test_calls_it_through_the_generated_stub(method: str) -> None:
    _, service, rpc = method.rsplit(".", 2)
    files = [*TESTS.glob("integration/**/test_*.py"), *TESTS.glob("e2e/**/test_*.py")]
    assert any({f"{service}Stub", rpc} <= _names_in(path) for path in files), f"no test calls {method}"
