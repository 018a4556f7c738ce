"""docs/limits.md has a line for every field that a client or an encoder controls, and says what the settings say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from gateway_service.config import GatewaySettings
from page_service.config import PageSettings
from tests.hostile.corpus import corpus
from vscan.v1 import decoder_pb2, encoder_pb2

PAGE = (Path(__file__).parents[3] / "docs" / "limits.md").read_text()
_OF_MODELS = {"max_context_tokens", "prune_layers", "raw_prompts"}  # their defaults depend on the model, or on where it listens


def fields_below(message: Any, seen: set[str]) -> Iterator[str]:
    """`Message.field` of a message and of all that it may hold."""
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield f"{message.name}.{field.name}"
        if field.message_type is not None:
            yield from fields_below(field.message_type, seen)


def controlled() -> set[str]:
    """Of every request, and of what an encoder answers with."""
    services = (decoder_pb2.DESCRIPTOR.services_by_name["Decoder"], encoder_pb2.DESCRIPTOR.services_by_name["VisionEncoder"])
    messages = [method.input_type for service in services for method in service.methods]
    tokens = encoder_pb2.EncodeResponse.DESCRIPTOR.fields_by_name["visual_tokens"].message_type
    answered = {f"EncodeResponse.{field.name}" for field in encoder_pb2.EncodeResponse.DESCRIPTOR.fields}
    return answered | {name for message in (*messages, tokens) for name in fields_below(message, set())}


def rows() -> list[list[str]]:
    """Cells of all tables."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| field", "| what"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_field_has_a_line() -> None:
    named = {name for cells in rows() for name in re.findall(r"`(\w+\.\w+)`", cells[0])}
    assert controlled() - named == set()
    assert named - controlled() == set(), "fields that are no more"


def test_settings_and_their_defaults_are_as_they_are() -> None:
    fields = (
        GatewaySettings.model_fields | PageSettings.model_fields | EncoderSettings.model_fields | DecoderSettings.model_fields
    )
    told = {cells[2].strip("`"): cells[3] for cells in rows() if len(cells) > 4 and cells[2].startswith("`")}
    assert len(told) > 25
    assert {name: str(fields[name].default) for name in told if name not in _OF_MODELS} == {
        name: default for name, default in told.items() if name not in _OF_MODELS
    }


def test_what_tries_a_field_is_in_the_corpus() -> None:
    families = {case.family for case in corpus()}
    tables = PAGE.split("## Questions to a decoder")[1].split("## What cannot")[0]
    tried = {line.rstrip("| ").rpartition("| ")[2] for line in tables.splitlines() if line.startswith("| `")}
    assert tried <= families
    assert len(tried) > 10
