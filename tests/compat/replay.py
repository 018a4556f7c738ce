"""Servers that say what a tape holds, and what two answers differ in."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.message import Message

from tests.compat.tape import Call, Tape
from tests.compat.wire import Answering
from vscan.v1 import decoder_pb2, encoder_pb2

# What changes a reply before it is sent.
Change = Callable[[str, bytes], bytes]
_CLOSE = 1e-3  # of log-probabilities: other packages may have been installed where the tape was made


def as_it_was(method: str, reply: bytes) -> bytes:
    """No change."""
    return reply


def encoder_of(tape: Tape, change: Change = as_it_was, seen: list[str] | None = None) -> Answering:
    """Answers as the tape's encoder did: `Encode` by the image and what was asked of it. `seen` gets the names of the calls."""
    encodes = {_asked(call.request): call for call in reversed(tape.calls("Encode"))}
    (described, *_) = [call for call in tape.encoded if call.name == "Describe"]

    def answer(method: str, request: bytes) -> Iterable[bytes]:
        name = method.rpartition("/")[2]
        if seen is not None:
            seen.append(name)
        call = described if name == "Describe" else encodes.get(_asked(request)) if name == "Encode" else None
        if call is None:
            raise LookupError(f"{name}: not on the tape")
        return [change(name, reply) for reply in call.replies]

    return answer


def decoder_of(tape: Tape, change: Change = as_it_was) -> Answering:
    """Answers as the tape's decoder did: `Generate` one after the other."""
    generates = iter(tape.calls("Generate"))
    (described, *_) = [call for call in tape.asked if call.name == "Describe"]

    def answer(method: str, request: bytes) -> Iterable[bytes]:
        name = method.rpartition("/")[2]
        call = described if name == "Describe" else next(generates)
        return [change(name, reply) for reply in call.replies]

    return answer


def read_events(replies: Iterable[bytes]) -> dict[str, Any]:
    """What of an answer must be the same, and log-probabilities, which must be close."""
    events = [decoder_pb2.GenerateEvent.FromString(reply) for reply in replies]
    started, finished = events[0].started, events[-1].finished
    tokens = [token for event in events for token in event.delta.tokens]
    return {
        "text": "".join(event.delta.text for event in events),
        "tokens": [token.token_id for token in tokens],
        "logprobs": [token.logprob for token in tokens],
        "images": [[image.sha256.hex(), image.tokens_before, image.tokens_after] for image in started.images],
        "prompt": started.prompt_tokens,
        "reason": finished.reason,
        "completion": finished.usage.completion_tokens,
        "pruned": [[one.layer, one.tokens_before, one.tokens_after] for one in finished.pruning],
    }


def differences(recorded: Any, found: Any, where: str = "") -> list[str]:
    """Where two values differ, none where they are the same; floats may differ by little."""
    if isinstance(recorded, dict) and isinstance(found, dict):
        names = sorted(recorded.keys() | found.keys())
        return [line for name in names for line in differences(recorded.get(name), found.get(name), f"{where}.{name}")]
    if isinstance(recorded, list) and isinstance(found, list) and len(recorded) == len(found):
        pairs = enumerate(zip(recorded, found, strict=True))
        return [line for n, (one, other) in pairs for line in differences(one, other, f"{where}[{n}]")]
    if isinstance(recorded, float) and isinstance(found, float):
        return [] if math.isclose(recorded, found, abs_tol=_CLOSE) else [f"{where}: {recorded} and {found}"]
    return [] if recorded == found else [f"{where}: {recorded!r} and {found!r}"]


def with_unknown_fields(message: Message) -> None:
    """Adds fields of a later release, a number, a text and a message, to a message and to all in it."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            repeated = not isinstance(value, Message)
            for inner in value if repeated else [value]:
                with_unknown_fields(inner)
    message.MergeFromString(b"\xc0\xbb\x01\x07" + b"\xca\xbb\x01\x05later" + b"\xd2\xbb\x01\x02\x08\x01")


def calls_to_repeat(tape: Tape, name: str) -> list[Call]:
    """Recorded calls of one method, each request once."""
    return list({(call.method, call.request): call for call in reversed(tape.calls(name))}.values())[::-1]


def _asked(request: bytes) -> tuple[bytes, bytes]:
    """What an Encode is about: the media's digest, and the reduction."""
    asked = encoder_pb2.EncodeRequest.FromString(request)
    digest = asked.image.sha256 or hashlib.sha256(asked.image.data).digest()
    return digest, asked.reduction.SerializeToString(deterministic=True)
