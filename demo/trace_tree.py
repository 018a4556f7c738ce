"""The trace of one question: checked to be one tree across the processes, and drawn."""

from __future__ import annotations

from collections.abc import Sequence

from rich.tree import Tree

from tests.support.otlp_collector import CollectedSpan, Node, trees


def problem_of(spans: Sequence[CollectedSpan], services: frozenset[str]) -> str | None:
    """Why the spans of one trace are not one tree across exactly these services, or None if they are."""
    roots = trees(spans)
    if len(roots) != 1 or roots[0].span.parent_id:
        return f"{len(roots)} trees: {', '.join(root.span.name for root in roots)}"
    seen = frozenset(span.service for span in spans)
    if seen != services:
        return f"spans of {', '.join(sorted(seen))} where {', '.join(sorted(services))} were expected"
    return None


def draw(spans: Sequence[CollectedSpan], title: str) -> Tree:
    """The tree, each span with its service and its duration."""
    tree = Tree(f"[bold]{title}[/]")
    for root in trees(spans):
        _grow(tree, root)
    return tree


def _grow(tree: Tree, node: Node) -> None:
    span = node.span
    branch = tree.add(f"{span.name}  [cyan]{span.service}[/]  {span.duration_ms:.2f} ms")
    for child in node.children:
        _grow(branch, child)
