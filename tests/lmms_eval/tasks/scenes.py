"""What the tasks of this folder are made of; lmms-eval calls it."""

from __future__ import annotations

from typing import Any

from PIL import Image


def doc_to_visual(doc: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a question, as they are in their files."""
    return [Image.open(path) for path in doc["images"]]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the answer is the label."""
    return {"right": float(results[0] == doc["answer"])}
