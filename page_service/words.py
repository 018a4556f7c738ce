"""Errors in words for people: what is wrong, next to which part of the form, and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from vscan.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    MissingImages,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    VScanError,
)
from vscan.rpc.error_details import was_told

# Parts of the form beside which an error may stand; "" is the whole of it.
FILES, QUESTION, BUDGET, WHOLE = "files", "question", "budget", ""
_OF_BUDGET = ("budget", "reduction", "prune")
_OF_FILES = (".image", ".video", "images", "video", "image")


@dataclass(frozen=True, slots=True)
class Told:
    """An error as the page shows it."""

    code: str
    message: str
    field: str = WHOLE
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"code": self.code, "message": self.message, "field": self.field, "advice": self.advice}


class Refusal(Exception):
    """A request that this server answers with an error itself."""

    def __init__(
        self, status: int, code: str, message: str, *, field: str = WHOLE, advice: str = "", ends_connection: bool = False
    ) -> None:
        super().__init__(message)
        self.status, self.ends_connection = status, ends_connection
        self.told = Told(code, message, field, advice)


def refusal_response(refusal: Refusal) -> JSONResponse:
    """The answer that tells it."""
    response = told_response(refusal.status, refusal.told)
    if refusal.ends_connection:
        response.headers["connection"] = "close"
    return response


def told_response(status: int, told: Told) -> JSONResponse:
    """An error as an answer."""
    return JSONResponse({"error": told.to_dict()}, status_code=status)


def told_of(error: VScanError, decoder: str) -> Told:
    """What is said of an error of the services.

    Args:
        decoder: its address, for when it is away.
    """
    if isinstance(error, InvalidArgument):
        return Told("refused", f"Refused: {_of_person(error)}.", _field_of(error.field))
    if isinstance(error, MissingImages):
        return Told("missing_files", "The tokens of a file are gone from the cache; it has to be sent again.", FILES)
    if isinstance(error, Unavailable):
        told = (
            f"The decoder cannot answer now: {error.message}."
            if was_told(error)
            else f"The decoder at {decoder} does not answer."
        )
        return Told("away", told, advice=_START_IT)
    if isinstance(error, ResourceExhausted):
        return Told("busy", f"The decoder has too much to do: {error.message}.", advice="Ask again in a moment.")
    if isinstance(error, DeadlineExceeded):
        return Told(
            "too_slow", "The answer took too long, and was given up.", advice="Ask again, or set VSCAN_PAGE_ANSWER_SECONDS."
        )
    if isinstance(error, Unauthenticated | PermissionDenied):
        return Told(
            "not_allowed", f"The decoder refuses this page: {error.message}.", advice="Set VSCAN_PAGE_DECODER_TOKEN_FILE."
        )
    if isinstance(error, Cancelled):
        return Told("cancelled", "Stopped.")
    trace = f" Its log has the reason under trace id {error.trace_id}." if error.trace_id else ""
    return Told("failed", f"The service failed: {error.message}.{trace}")


def told_unknown() -> Told:
    """What is said of a fault that nobody foresaw: nothing of its text."""
    return Told("failed", "The page's server failed.", advice="Its log says why.")


_START_IT = "Start the services with `vscan up` (or look at their log), then ask again."


def _of_person(error: InvalidArgument) -> str:
    """`file 2: 6 x 4 pixels (limit: at least 8 pixels a side)`: parts of the form by their own names, not by the request's."""
    part = re.fullmatch(r"messages\[0\]\.parts\[(\d+)\]\.(image|video|text)(\..+)?", error.field)
    if part is None:
        return error.message
    name = "" if part[2] == "text" else f"file {int(part[1]) + 1}: "
    return f"{name}{error.problem}" + (f" (limit: {error.limit})" if error.limit else "")


def _field_of(path: str) -> str:
    """The part of the form that a field of the request comes from."""
    if any(name in path.split(".") for name in _OF_BUDGET):
        return BUDGET
    if path.startswith("messages") and path.endswith(".text"):
        return QUESTION
    if any(name in path for name in _OF_FILES):
        return FILES
    return WHOLE
