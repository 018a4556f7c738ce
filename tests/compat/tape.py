"""Calls as they went over the wire: method, request and replies as bytes. One JSON file, without any class of the services."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Call:
    """One call. `method` is its path, `/vscan.v1.Decoder/Generate`; `details` the `google.rpc.Status` of a refusal."""

    method: str
    request: bytes
    replies: list[bytes] = field(default_factory=list)
    code: str = "OK"
    details: bytes = b""

    @property
    def name(self) -> str:
        """The method's own name."""
        return self.method.rpartition("/")[2]


@dataclass(slots=True)
class CacheEntry:
    """One key and value of Redis, as they are there."""

    name: str
    value: bytes


@dataclass(slots=True)
class Tape:
    """What was recorded of one deployment.

    Attributes:
        commit: whose code ran.
        date: the commit's, `YYYY-MM-DD`.
        asked: of the decoder, by the SDK.
        encoded: of the encoder, by that decoder and by the SDK.
        refused: what cannot be met, and what was said to it.
        entries: what Redis held at the end.
        answers: what the SDK made of it: one for each question, in order.
    """

    commit: str
    date: str
    asked: list[Call] = field(default_factory=list)
    encoded: list[Call] = field(default_factory=list)
    refused: list[Call] = field(default_factory=list)
    entries: list[CacheEntry] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def calls(self, name: str) -> list[Call]:
        """Those of one method that ended well."""
        return [call for call in (*self.asked, *self.encoded) if call.name == name and call.code == "OK"]

    def save(self, path: Path) -> None:
        """Writes it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_plain(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Tape:
        """Reads one."""
        said = json.loads(path.read_text())
        return cls(
            commit=said["commit"],
            date=said["date"],
            asked=list(_calls(said["asked"])),
            encoded=list(_calls(said["encoded"])),
            refused=list(_calls(said["refused"])),
            entries=[CacheEntry(one["name"], b64decode(one["value"])) for one in said["entries"]],
            answers=said["answers"],
        )


def _plain(tape: Tape) -> dict[str, Any]:
    return {
        "commit": tape.commit,
        "date": tape.date,
        "asked": [_plain_call(call) for call in tape.asked],
        "encoded": [_plain_call(call) for call in tape.encoded],
        "refused": [_plain_call(call) | {"details": b64encode(call.details).decode()} for call in tape.refused],
        "entries": [{"name": entry.name, "value": b64encode(entry.value).decode()} for entry in tape.entries],
        "answers": tape.answers,
    }


def _plain_call(call: Call) -> dict[str, Any]:
    replies = [b64encode(reply).decode() for reply in call.replies]
    return {"method": call.method, "request": b64encode(call.request).decode(), "replies": replies, "code": call.code}


def _calls(said: list[dict[str, Any]]) -> Iterator[Call]:
    for one in said:
        replies = [b64decode(reply) for reply in one["replies"]]
        yield Call(one["method"], b64decode(one["request"]), replies, one["code"], b64decode(one.get("details", "")))
