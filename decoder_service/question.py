"""Reads a `GenerateRequest` into values, and refuses what is over a limit before any work is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decoder_service.chat import Chat, ImagePart, Part, RawPrompt, Role, TextPart, Turn
from decoder_service.images import ImageInput
from decoder_service.limits import Limits, check_count
from vscan.content_key import DIGEST_BYTES
from vscan.errors import InvalidArgument
from vscan.specs import PruneSpec, ReductionSpec, SamplingSpec
from vscan.v1 import decoder_pb2, visual_tokens_pb2
from vscan.wire import prune_from_proto, reduction_from_proto, sampling_from_proto

_ROLES: dict[decoder_pb2.Role, Role] = {
    decoder_pb2.ROLE_SYSTEM: Role.SYSTEM,
    decoder_pb2.ROLE_USER: Role.USER,
    decoder_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one request asks. Unset fields of its specs mean the deployment's defaults."""

    prompt: Chat | RawPrompt
    images: tuple[ImageInput, ...]  # in the prompt's order
    reduction: ReductionSpec
    prune: PruneSpec
    sampling: SamplingSpec
    report_kept: bool

    @property
    def prompt_field(self) -> str:
        """Where the request has the prompt, for errors about all of it."""
        return "raw.text" if isinstance(self.prompt, RawPrompt) else "messages"

    @property
    def text_chars(self) -> int:
        """Characters of all its texts."""
        if isinstance(self.prompt, RawPrompt):
            return len(self.prompt.text)
        return sum(len(part.text) for part in self.prompt.texts())


def read_question(request: decoder_pb2.GenerateRequest, limits: Limits) -> Question:
    """The request as values. Raises InvalidArgument naming the field and the limit."""
    prompt, images = _prompt(request, limits)
    sampling = sampling_from_proto(request.sampling)
    limits.check_sampling(sampling)
    return Question(
        prompt=prompt,
        images=tuple(images),
        reduction=reduction_from_proto(request.reduction),
        prune=prune_from_proto(request.prune),
        sampling=sampling,
        report_kept=request.report_kept,
    )


def _prompt(request: decoder_pb2.GenerateRequest, limits: Limits) -> tuple[Chat | RawPrompt, list[ImageInput]]:
    match request.WhichOneof("prompt"):
        case "chat":
            _check_chat(request.chat, limits)
            return Chat(tuple(_turns(request.chat))), list(_chat_images(request.chat))
        case "raw":
            check_count("raw.text", len(request.raw.text), 1, limits.max_text_chars, "characters")
            check_count("raw.images", len(request.raw.images), 0, limits.max_images, "images")
            images = [_image(image, f"raw.images[{index}]") for index, image in enumerate(request.raw.images)]
            return RawPrompt(request.raw.text, len(images)), images
        case _:
            raise InvalidArgument("prompt", "not set; a chat or a raw prompt is needed")


def _check_chat(chat: decoder_pb2.Chat, limits: Limits) -> None:
    """Everything that is counted, then who speaks when."""
    check_count("messages", len(chat.messages), 1, limits.max_messages, "messages")
    # Images before parts: too many images in one message are told as images. But nobody makes us look at millions of parts.
    if sum(len(message.parts) for message in chat.messages) <= limits.max_messages * limits.max_parts:
        kinds = [part.WhichOneof("content") for message in chat.messages for part in message.parts]
        check_count("messages", kinds.count("image"), 0, limits.max_images, "images")
    for index, message in enumerate(chat.messages):
        check_count(f"messages[{index}].parts", len(message.parts), 1, limits.max_parts, "parts")
    chars = sum(len(part.text) for message in chat.messages for part in message.parts)
    check_count("messages", chars, 0, limits.max_text_chars, "characters of text")
    _check_roles([message.role for message in chat.messages])


def _check_roles(roles: list[decoder_pb2.Role]) -> None:
    for index, role in enumerate(roles):
        field = f"messages[{index}].role"
        if role not in _ROLES:
            raise InvalidArgument(field, f"unknown value {role}" if role else "not set")
        if role == decoder_pb2.ROLE_SYSTEM and index:
            raise InvalidArgument(field, "a system message", limit="the first message only")
    if roles[-1] != decoder_pb2.ROLE_USER:
        raise InvalidArgument(f"messages[{len(roles) - 1}].role", "the last message must be the user's")


def _turns(chat: decoder_pb2.Chat) -> Iterator[Turn]:
    for index, message in enumerate(chat.messages):
        field = f"messages[{index}]"
        parts = (_part(part, f"{field}.parts[{number}]") for number, part in enumerate(message.parts))
        yield Turn(field, _ROLES[message.role], tuple(parts))


def _part(part: decoder_pb2.Part, field: str) -> Part:
    match part.WhichOneof("content"):
        case "text":
            return TextPart(f"{field}.text", part.text)
        case "image":
            return ImagePart(f"{field}.image")
        case _:
            raise InvalidArgument(field, "neither text nor image")


def _chat_images(chat: decoder_pb2.Chat) -> Iterator[ImageInput]:
    for index, message in enumerate(chat.messages):
        for number, part in enumerate(message.parts):
            if part.WhichOneof("content") == "image":
                yield _image(part.image, f"messages[{index}].parts[{number}].image")


def _image(image: visual_tokens_pb2.Image, field: str) -> ImageInput:
    match image.WhichOneof("source"):
        case "data":
            if not image.data:
                raise InvalidArgument(f"{field}.data", "0 bytes")
            return ImageInput(field, data=image.data)
        case "sha256":
            if len(image.sha256) != DIGEST_BYTES:
                raise InvalidArgument(f"{field}.sha256", f"{len(image.sha256)} bytes", limit=f"{DIGEST_BYTES} bytes")
            return ImageInput(field, sha256=image.sha256)
        case _:
            raise InvalidArgument(field, "neither data nor sha256")
