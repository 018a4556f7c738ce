"""Reads a `GenerateRequest` into values, and refuses what is over a limit before any work is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decoder_service.chat import Chat, MediaKind, MediaPart, Part, RawPrompt, Role, TextPart, Turn
from decoder_service.limits import Limits, check_count, check_priority
from decoder_service.media import ImageInput, MediaInput, VideoInput
from vscan.content_key import DIGEST_BYTES
from vscan.errors import InvalidArgument
from vscan.specs import PruneSpec, ReductionSpec, SamplingSpec
from vscan.v1 import decoder_pb2, visual_tokens_pb2
from vscan.wire import frame_sampling_from_proto, prune_from_proto, reduction_from_proto, sampling_from_proto

_ROLES: dict[decoder_pb2.Role, Role] = {
    decoder_pb2.ROLE_SYSTEM: Role.SYSTEM,
    decoder_pb2.ROLE_USER: Role.USER,
    decoder_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What one request asks. Unset fields of its specs mean the deployment's defaults."""

    prompt: Chat | RawPrompt
    media: tuple[MediaInput, ...]  # those of a kind in the prompt's order
    reduction: ReductionSpec
    prune: PruneSpec
    sampling: SamplingSpec
    report_kept: bool
    priority: int = 0

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


def read_question(request: decoder_pb2.GenerateRequest, limits: Limits, *, videoless: str | None = None) -> Question:
    """The request as values.

    Args:
        videoless: the model's family where it takes no videos at all.

    Raises:
        InvalidArgument: names the field and the limit.
    """
    check_priority(request.priority)
    prompt, media = _prompt(request, limits, videoless)
    sampling = sampling_from_proto(request.sampling)
    limits.check_sampling(sampling)
    return Question(
        prompt=prompt,
        media=tuple(media),
        reduction=reduction_from_proto(request.reduction),
        prune=prune_from_proto(request.prune),
        sampling=sampling,
        report_kept=request.report_kept,
        priority=request.priority,
    )


def _prompt(
    request: decoder_pb2.GenerateRequest, limits: Limits, videoless: str | None
) -> tuple[Chat | RawPrompt, list[MediaInput]]:
    match request.WhichOneof("prompt"):
        case "chat":
            _check_chat(request.chat, limits, videoless)
            return Chat(tuple(_turns(request.chat))), list(_chat_media(request.chat))
        case "raw":
            raw = request.raw
            check_count("raw.text", len(raw.text), 1, limits.max_text_chars, "characters")
            check_count("raw.images", len(raw.images), 0, limits.max_images, "images")
            if raw.videos and videoless:
                raise _takes_no_videos("raw.videos[0]", videoless)
            check_count("raw.videos", len(raw.videos), 0, limits.max_videos, "videos")
            images = [_image(image, f"raw.images[{index}]") for index, image in enumerate(raw.images)]
            videos = [_video(video, f"raw.videos[{index}]") for index, video in enumerate(raw.videos)]
            return RawPrompt(raw.text, len(images), len(videos)), [*images, *videos]
        case _:
            raise InvalidArgument("prompt", "not set; a chat or a raw prompt is needed")


def _check_chat(chat: decoder_pb2.Chat, limits: Limits, videoless: str | None) -> None:
    """Everything that is counted, then who speaks when."""
    check_count("messages", len(chat.messages), 1, limits.max_messages, "messages")
    # Images before parts: too many images in one message are told as images. But nobody makes us look at millions of parts.
    if sum(len(message.parts) for message in chat.messages) <= limits.max_messages * limits.max_parts:
        kinds = [(field, part.WhichOneof("content")) for field, part in _parts(chat)]
        videos = [f"{field}.video" for field, kind in kinds if kind == "video"]
        check_count("messages", sum(kind == "image" for _, kind in kinds), 0, limits.max_images, "images")
        if videos and videoless:
            raise _takes_no_videos(videos[0], videoless)
        check_count("messages", len(videos), 0, limits.max_videos, "videos")
    for index, message in enumerate(chat.messages):
        check_count(f"messages[{index}].parts", len(message.parts), 1, limits.max_parts, "parts")
    chars = sum(len(part.text) for message in chat.messages for part in message.parts)
    check_count("messages", chars, 0, limits.max_text_chars, "characters of text")
    _check_roles([message.role for message in chat.messages])


def _takes_no_videos(field: str, family: str) -> InvalidArgument:
    return InvalidArgument(field, f"{family} takes no videos")


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
            return MediaPart(f"{field}.image", MediaKind.IMAGE)
        case "video":
            return MediaPart(f"{field}.video", MediaKind.VIDEO)
        case _:
            raise InvalidArgument(field, "neither text, image nor video")


def _parts(chat: decoder_pb2.Chat) -> Iterator[tuple[str, decoder_pb2.Part]]:
    """Every part behind its path."""
    for index, message in enumerate(chat.messages):
        for number, part in enumerate(message.parts):
            yield f"messages[{index}].parts[{number}]", part


def _chat_media(chat: decoder_pb2.Chat) -> Iterator[MediaInput]:
    for field, part in _parts(chat):
        match part.WhichOneof("content"):
            case "image":
                yield _image(part.image, f"{field}.image")
            case "video":
                yield _video(part.video, f"{field}.video")


def _image(image: visual_tokens_pb2.Image, field: str) -> ImageInput:
    match image.WhichOneof("source"):
        case "data":
            return ImageInput(field, data=_some(image.data, field))
        case "sha256":
            return ImageInput(field, sha256=_digest(image.sha256, field))
        case _:
            raise InvalidArgument(field, "neither data nor sha256")


def _video(video: visual_tokens_pb2.Video, field: str) -> VideoInput:
    sampling = frame_sampling_from_proto(video.sampling, f"{field}.sampling")
    match video.WhichOneof("source"):
        case "data":
            return VideoInput(field, data=_some(video.data, field), sampling=sampling)
        case "frames":
            if not video.frames.images:
                raise InvalidArgument(f"{field}.frames.images", "0 frames")
            return VideoInput(field, frames=tuple(video.frames.images), sampling=sampling)
        case "sha256":
            return VideoInput(field, sha256=_digest(video.sha256, field), sampling=sampling)
        case _:
            raise InvalidArgument(field, "neither data, frames nor sha256")


def _some(data: bytes, field: str) -> bytes:
    if not data:
        raise InvalidArgument(f"{field}.data", "0 bytes")
    return data


def _digest(sha256: bytes, field: str) -> bytes:
    if len(sha256) != DIGEST_BYTES:
        raise InvalidArgument(f"{field}.sha256", f"{len(sha256)} bytes", limit=f"{DIGEST_BYTES} bytes")
    return sha256
