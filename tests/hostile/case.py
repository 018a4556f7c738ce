"""What a hostile case is: a name, what is sent, and what must come of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from google.protobuf.message import Message
from grpc import StatusCode

from tests.support.asking import chat
from vscan.v1 import decoder_pb2 as pb
from vscan.v1 import encoder_pb2, visual_tokens_pb2

GENERATE = "/vscan.v1.Decoder/Generate"
DESCRIBE = "/vscan.v1.Decoder/Describe"
ENCODE = "/vscan.v1.VisionEncoder/Encode"
LOOKUP = "/vscan.v1.VisionEncoder/Lookup"
IMAGE = "messages[0].parts[0].image"
VIDEO = "messages[0].parts[0].video"
QUESTION = "what colour is the star"

_NAMES_NO_FIELD = (StatusCode.OK, StatusCode.RESOURCE_EXHAUSTED)

Metadata = tuple[tuple[str, str | bytes], ...]
Sent = bytes | Message


class Target(StrEnum):
    """Who gets it."""

    DECODER = "decoder"
    ENCODER = "encoder"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a call may end with. `field`: the one that a refusal names; None where nobody's field is at fault."""

    statuses: tuple[StatusCode, ...]
    field: str | None = None

    def holds(self, status: StatusCode, named: str) -> bool:
        """Whether the call ended so."""
        if status not in self.statuses:
            return False
        return status in _NAMES_NO_FIELD or self.field is None or named == self.field


ANSWERED = Expected((StatusCode.OK,))


def refused(field: str | None = None, *statuses: StatusCode) -> Expected:
    """INVALID_ARGUMENT for this field, or another status."""
    return Expected(statuses or (StatusCode.INVALID_ARGUMENT,), field)


def either(field: str | None = None) -> Expected:
    """Answered, or refused for this field: where it depends on a library whether damage shows."""
    return Expected((StatusCode.OK, StatusCode.INVALID_ARGUMENT), field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Something hostile. Subclasses say how it is sent."""

    family: str
    name: str
    expected: Expected = ANSWERED

    @property
    def title(self) -> str:
        """Unique in the corpus."""
        return f"{self.family}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCase(Case):
    """A call of a service, of a message or of bytes that are none."""

    target: Target = Target.DECODER
    method: str = GENERATE
    make: Callable[[], Sent]
    metadata: Metadata = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyCase(Case):
    """An encoder's answer to a decoder, spoilt on its way."""

    spoil: Callable[[encoder_pb2.EncodeResponse], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryCase(Case):
    """An entry of the cache, spoilt in Redis: `spoil` gets the entry, its key, and another key's entry."""

    spoil: Callable[[bytes, bytes, bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionCase(Case):
    """What comes over a connection that is no call: gets host and port, returns once it is over."""

    talk: Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Family:
    """Collects cases."""

    name: str
    cases: list[Case] = field(default_factory=list)

    def media(self, name: str, make: Callable[[], bytes], expected: Expected = ANSWERED, *, video: bool = False) -> None:
        """A file, as the one part before a question."""
        self.call(name, lambda: about(make(), video=video), expected)

    def image(self, name: str, make: Callable[[], bytes], expected: Expected | None = None) -> None:
        """An image file; refused unless said otherwise."""
        self.media(name, make, expected or refused(IMAGE))

    def video(self, name: str, make: Callable[[], bytes], expected: Expected | None = None) -> None:
        """A video file; refused unless said otherwise."""
        self.media(name, make, expected or refused(VIDEO), video=True)

    def call(
        self,
        name: str,
        make: Callable[[], Sent],
        expected: Expected = ANSWERED,
        *,
        target: Target = Target.DECODER,
        method: str = GENERATE,
        metadata: Metadata = (),
    ) -> None:
        """A call."""
        case = CallCase(
            family=self.name, name=name, expected=expected, target=target, method=method, make=make, metadata=metadata
        )
        self.cases.append(case)


def about(data: bytes, *, video: bool = False) -> pb.GenerateRequest:
    """A question about a file."""
    request = chat(QUESTION, max_new_tokens=4)
    part = pb.Part(video=visual_tokens_pb2.Video(data=data)) if video else pb.Part(image=visual_tokens_pb2.Image(data=data))
    request.chat.messages[0].parts.insert(0, part)
    return request
