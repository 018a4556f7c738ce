"""Requests that no service can meet, and what both say to them: code and details as they went over the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from tests.compat.tape import Call
from vscan.rpc.error_details import STATUS_DETAILS_KEY
from vscan.v1 import decoder_pb2, encoder_pb2, visual_tokens_pb2

GENERATE, ENCODE = "/vscan.v1.Decoder/Generate", "/vscan.v1.VisionEncoder/Encode"
NEVER_SENT = hashlib.sha256(b"never sent").digest()
_LATER = 77  # a number that no enum has yet
_SECONDS = 60


def refused_requests() -> Iterator[tuple[str, Message, str, str]]:
    """Method, request, the name of the error and the field that it names."""
    image = decoder_pb2.Part(image=visual_tokens_pb2.Image(sha256=NEVER_SENT))
    text = decoder_pb2.Part(text="What is this?")
    yield GENERATE, _chat(text, max_new_tokens=10**9), "InvalidArgument", "sampling.max_new_tokens"
    yield GENERATE, _chat(image, text), "MissingImages", "messages[0].parts[0].image"
    yield ENCODE, encoder_pb2.EncodeRequest(image=visual_tokens_pb2.Image(sha256=NEVER_SENT)), "MissingImages", "image"
    picture = visual_tokens_pb2.Image(data=b"no picture")
    yield ENCODE, encoder_pb2.EncodeRequest(image=picture), "InvalidArgument", "image"
    later = visual_tokens_pb2.ReductionSpec(method=_LATER)  # type: ignore[arg-type]
    yield ENCODE, encoder_pb2.EncodeRequest(image=picture, reduction=later), "InvalidArgument", "reduction.method"


def record_refusals(decoder: str, encoder: str) -> list[Call]:
    """What the services at these addresses say to all of them."""
    asked = [(method, request.SerializeToString()) for method, request, _, _ in refused_requests()]
    return [_refused(decoder if method == GENERATE else encoder, method, request) for method, request in asked]


def _refused(address: str, method: str, request: bytes) -> Call:
    with grpc.insecure_channel(address) as channel:
        try:
            replies = list(channel.unary_stream(method, None, None)(request, timeout=_SECONDS))
        except grpc.RpcError as refused:
            error: Any = refused  # of a call that was made it is the call, too
            details = dict(error.trailing_metadata() or ()).get(STATUS_DETAILS_KEY, b"")
            return Call(method, request, code=error.code().name, details=details)
    raise RuntimeError(f"{method} was answered: {len(replies)} replies")


def _chat(*parts: decoder_pb2.Part, **sampling: Any) -> decoder_pb2.GenerateRequest:
    message = decoder_pb2.Message(role=decoder_pb2.ROLE_USER, parts=parts)
    chat = decoder_pb2.Chat(messages=[message])
    return decoder_pb2.GenerateRequest(chat=chat, sampling=decoder_pb2.SamplingParams(**sampling))
