"""A question as a browser sends it (`multipart/form-data`), read into memory within bounds.

question   what is asked
budget     as `vscan ask --budget` takes it; `none`: no reduction, and no pruning
visual     an image or video: a file, or `image:` or `video:` and the SHA-256 (64 hexadecimal digits) of one sent before;
           as often as there are images and videos, in order
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from page_service.config import PageSettings
from page_service.words import BUDGET, FILES, QUESTION, Refusal
from vscan.errors import InvalidArgument
from vscan_client import AskOptions, Image, Video
from vscan_client.cli.questions import QuestionOptions
from vscan_client.content import Visual, as_visual

NO_REDUCTION = "none"
_NAMED = re.compile(r"(image|video):([0-9a-f]{64})")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}", re.ASCII)  # RFC 2046, section 5.1.1
_OTHER_FIELDS = ("question", "budget")
_MAX_OTHER_BYTES = 4096  # of a field that is no question


@dataclass(frozen=True, slots=True)
class Asked:
    """What to ask."""

    question: str
    visuals: tuple[Visual, ...]
    options: AskOptions


def size_of(request: Request, settings: PageSettings) -> int:
    """Bytes to hold for a body: as many as it says, or as it may have at most. Raises Refusal where it says more."""
    said = request.headers.get("content-length", "")
    if not (said.isascii() and said.isdigit()):
        return settings.max_upload_bytes
    if int(said) > settings.max_upload_bytes:
        raise _too_large(settings)
    return int(said)


async def read_form(request: Request, settings: PageSettings) -> Asked:
    """Reads and checks a request's body.

    Raises:
        Refusal: it is too large, too slow, or does not say what it has to.
    """
    boundary = _boundary(request)
    try:
        async with asyncio.timeout(settings.client_patience_seconds):
            items = await _parse(request, boundary, settings)
    except TimeoutError:
        raise Refusal(
            408, "too_slow", f"The files did not come within {settings.client_patience_seconds:g} seconds.", field=FILES
        ) from None
    except MultiPartException as error:
        if "exceeded maximum size" in error.message:  # of a text: files are counted by us
            raise _too_long(settings) from error
        raise Refusal(400, "bad_form", f"The form cannot be read: {error.message}") from error
    return _checked(items, settings)


def _boundary(request: Request) -> str:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise Refusal(415, "not_a_form", "A form (multipart/form-data) is needed.")
    boundary = options.get(b"boundary", b"").decode("latin-1")
    if not _BOUNDARY.fullmatch(boundary):
        raise _bad_form("its content-type has no boundary")
    return boundary


async def _parse(request: Request, boundary: str, settings: PageSettings) -> list[tuple[str, str | bytes]]:
    class InMemory(MultiPartParser):
        spool_max_size = settings.max_upload_bytes + 1  # never reached, so nothing is ever written to a disk
        is_whole = False

        def on_end(self) -> None:
            self.is_whole = True

    parser = InMemory(
        # Texts are decoded here: the parser takes what is no UTF-8 for something else, and any codec that it is told.
        Headers({"content-type": f'multipart/form-data; boundary="{boundary}"; charset=latin-1'}),
        _bounded(request, settings),
        max_files=settings.max_files + 1,  # one too many is refused in words of the page's own
        max_fields=settings.max_files + 1 + len(_OTHER_FIELDS),
        max_part_size=_MAX_OTHER_BYTES + 4 * settings.max_question_chars,
    )
    form = await parser.parse()
    try:
        if not parser.is_whole:
            raise _bad_form("it is cut off")
        return [
            (_utf8(name), await value.read() if isinstance(value, UploadFile) else _utf8(value))
            for name, value in form.multi_items()
        ]
    finally:
        await form.close()


def _utf8(latin_1: str) -> str:
    try:
        return latin_1.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise _bad_form("a text is no UTF-8") from None


async def _bounded(request: Request, settings: PageSettings) -> AsyncGenerator[bytes, None]:
    taken = 0
    try:
        async for chunk in request.stream():
            taken += len(chunk)
            if taken > settings.max_upload_bytes:
                raise _too_large(settings)
            yield chunk
    except ClientDisconnect:
        raise Refusal(400, "left", "The browser left.") from None


def _too_large(settings: PageSettings) -> Refusal:
    most = settings.max_upload_bytes
    return Refusal(
        413,
        "too_large",
        f"The files are too large: at most {f'{most / 2**20:.1f} MiB' if most >= 2**20 else f'{most:,} bytes'} together.",
        field=FILES,
        advice="Choose smaller or fewer files.",
    )


def _too_long(settings: PageSettings) -> Refusal:
    return Refusal(400, "too_long", f"The question is longer than {settings.max_question_chars} characters.", field=QUESTION)


def _bad_form(why: str) -> Refusal:
    return Refusal(400, "bad_form", f"The form cannot be read: {why}.")


def _checked(items: list[tuple[str, str | bytes]], settings: PageSettings) -> Asked:
    texts = {name: value for name, value in items if isinstance(value, str) and name != "visual"}
    times = Counter(name for name, _ in items)
    if unknown := times.keys() - {*_OTHER_FIELDS, "visual"}:
        raise _bad_form(f"an unknown field {min(unknown)[:40]!r}")
    if twice := [name for name in _OTHER_FIELDS if times[name] > 1]:
        raise _bad_form(f"{twice[0]} comes twice")
    question = texts.get("question", "").strip()
    if not question:
        raise Refusal(400, "no_question", "Write a question.", field=QUESTION)
    if len(question) > settings.max_question_chars:
        raise _too_long(settings)
    given = [value for name, value in items if name == "visual"]
    if not given:
        raise Refusal(400, "no_files", "Choose an image or a video.", field=FILES)
    if len(given) > settings.max_files:
        raise Refusal(400, "too_many", f"{len(given)} files; at most {settings.max_files} for one question.", field=FILES)
    return Asked(question, tuple(map(_visual, given)), _options(texts.get("budget", "")))


def _visual(given: str | bytes) -> Visual:
    if isinstance(given, bytes):
        if not given:
            raise Refusal(400, "empty_file", "A file is empty.", field=FILES)
        return as_visual(given)
    match = _NAMED.fullmatch(given)
    if match is None:
        raise Refusal(400, "bad_form", "Neither a file nor the SHA-256 of one.", field=FILES)
    return Image.from_digest(match[2]) if match[1] == "image" else Video.from_digest(match[2])


def _options(budget: str) -> AskOptions:
    if budget == NO_REDUCTION:
        return QuestionOptions(reduction="none", rater="none", report_kept=True).ask_options()
    try:
        return QuestionOptions(budget=budget.strip() or None, report_kept=True).ask_options()
    except InvalidArgument as error:
        raise Refusal(
            400,
            "bad_budget",
            f"This budget is refused: {error.message}.",
            field=BUDGET,
            advice="Write 96, total:256, 33% or avg:11.1%.",
        ) from error
