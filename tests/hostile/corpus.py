"""All hostile cases."""

from __future__ import annotations

from functools import cache

from tests.hostile.case import Case
from tests.hostile.chats import chat_cases
from tests.hostile.connections import connection_cases
from tests.hostile.constraints import constraint_cases
from tests.hostile.http_cases import http_cases
from tests.hostile.http_others import asked_over_http
from tests.hostile.images import image_cases
from tests.hostile.messages import message_cases
from tests.hostile.metadata import metadata_cases
from tests.hostile.replies import entry_cases, reply_cases
from tests.hostile.videos import video_cases


@cache
def corpus() -> tuple[Case, ...]:
    """In the order of their families; titles are unique."""
    makers = (
        image_cases,
        video_cases,
        message_cases,
        chat_cases,
        constraint_cases,
        reply_cases,
        entry_cases,
        metadata_cases,
        connection_cases,
    )
    cases = [case for make in makers for case in make()]
    return (*cases, *http_cases(), *asked_over_http(cases))
