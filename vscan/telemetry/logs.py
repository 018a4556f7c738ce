"""Log lines, as text or JSON, each with the trace it belongs to; and the fields of the one line that ends a request.

Prompts, answers and image bytes are never fields: a field is a number, a flag, or one short word (`short_digest` of a digest).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Literal

from vscan.telemetry.context import current_span_id, current_trace_id

FieldValue = int | float | bool | str
MAX_WORD_CHARS = 48  # below the 64 digits of a digest
SHOWN_DIGEST_DIGITS = 8

_FIELDS: ContextVar[dict[str, FieldValue] | None] = ContextVar("vscan_request_fields", default=None)
_ATTRIBUTE = "vscan_fields"
_OWN_NAMES = frozenset({"time", "level", "logger", "message", "trace_id", "span_id", "traceback"})


@contextmanager
def request_fields() -> Iterator[dict[str, FieldValue]]:
    """Collects what `add_request_fields` adds, for the line that ends the request."""
    fields: dict[str, FieldValue] = {}
    token = _FIELDS.set(fields)
    try:
        yield fields
    finally:
        _FIELDS.reset(token)


def add_request_fields(**fields: FieldValue) -> None:
    """Adds to the log line of the request being served: `images=2, tokens_before=288`. Elsewhere it does nothing."""
    collected = _FIELDS.get()
    if collected is not None:
        collected.update({name: _safe(value) for name, value in fields.items()})


def short_digest(digest: bytes) -> str:
    """The first digits of a digest, enough to tell images apart in a log and too few to ask for one."""
    return digest.hex()[:SHOWN_DIGEST_DIGITS]


def log_fields(fields: dict[str, FieldValue]) -> dict[str, object]:
    """The `extra` of a log call, so that `fields` stay fields in JSON."""
    return {_ATTRIBUTE: {name: _safe(value) for name, value in fields.items()}}


def _safe(value: FieldValue) -> FieldValue:
    """The value; or, where it may be what somebody asked or was answered, only its kind and length."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_WORD_CHARS and len(value.split()) <= 1):
        return value
    size = f":{len(value)}" if isinstance(value, (str, bytes)) else ""
    return f"<{type(value).__name__}{size}>"


def _fields_of(record: logging.LogRecord) -> dict[str, FieldValue]:
    return getattr(record, _ATTRIBUTE, {})


class TextFormatter(logging.Formatter):
    """`2025-01-31T12:00:00.000Z info vscan.request Generate ok duration_ms=12.3 trace=4bf9…`, tracebacks below."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or more with a traceback."""
        parts = [_timestamp(record), record.levelname.lower(), record.name, " ".join(record.getMessage().split())]
        parts += [f"{name}={_text(value)}" for name, value in _fields_of(record).items()]
        if trace := current_trace_id():
            parts.append(f"trace={trace}")
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, trace_id, span_id, and traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        entry: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {name: value for name, value in _fields_of(record).items() if name not in _OWN_NAMES}
        if trace := current_trace_id():
            entry |= {"trace_id": trace, "span_id": current_span_id()}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def configure_logging(
    *, log_format: Literal["text", "json"] = "text", log_level: str = "info", stream: IO[str] | None = None
) -> logging.Handler:
    """Sends every record of this process to one stream (stdout unless told). Returns the handler."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(log_level.upper())
    return handler


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _text(value: FieldValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
