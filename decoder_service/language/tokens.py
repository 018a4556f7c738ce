"""Token ids that have a meaning of their own, read from a checkpoint's files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vscan.checkpoint import Checkpoint
from vscan.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Which ids mean more than text."""

    placeholder_id: int  # stands in a prompt where rows of an image go
    end_ids: frozenset[int]  # end an answer
    control_ids: frozenset[int]  # user text must never yield one of these; placeholders and end ids are among them
    unknown_ids: frozenset[int]  # stands for words outside the vocabulary: any text may yield it
    video_placeholder_id: int | None = None  # where rows of a video go; None: the family takes no videos


def read_special_tokens(
    checkpoint: Checkpoint, *, placeholder_id: int, video_placeholder_id: int | None = None
) -> SpecialTokens:
    """The special tokens of a checkpoint.

    End ids are those of generation_config.json, else of the text configuration, else of the tokenizer.

    Raises:
        CheckpointError: no tokenizer.json, or nothing names an end of sequence.
    """
    stated = _read_json(checkpoint.directory / "tokenizer.json")
    if not stated:
        raise CheckpointError(f"{checkpoint.directory}: no tokenizer.json; the tokenizers library's own format is needed")
    added = stated.get("added_tokens", [])
    ends = _end_ids(checkpoint, added)
    unknown = {token["id"] for token in added if token["content"] == stated.get("model", {}).get("unk_token")}
    control = {token["id"] for token in added if token.get("special")} - unknown
    placeholders = {placeholder_id} if video_placeholder_id is None else {placeholder_id, video_placeholder_id}
    return SpecialTokens(
        placeholder_id, ends, frozenset(control | ends | placeholders), frozenset(unknown), video_placeholder_id
    )


def _end_ids(checkpoint: Checkpoint, added: list[dict[str, Any]]) -> frozenset[int]:
    generation = _read_json(checkpoint.directory / "generation_config.json").get("eos_token_id")
    text = getattr(checkpoint.config.get_text_config(), "eos_token_id", None)
    stated = generation if generation is not None else text
    if stated is None:
        name = _read_json(checkpoint.directory / "tokenizer_config.json").get("eos_token")
        stated = [token["id"] for token in added if token["content"] == name]
    ends = frozenset([stated] if isinstance(stated, int) else stated)
    if not ends:
        raise CheckpointError(f"{checkpoint.directory}: no file names the end-of-sequence token")
    return ends


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{file}: not JSON") from error
    return content
