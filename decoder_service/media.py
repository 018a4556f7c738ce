"""An image or a video as a request has it: its name, and how the encoder is asked for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from decoder_service.chat import MediaKind
from decoder_service.pairing import EncoderDescription
from vscan.content_key import DIGEST_BYTES, frames_sha256
from vscan.errors import InvalidArgument
from vscan.offload import off_loop_if_large
from vscan.specs import FrameCount, FrameSampling, filled_sampling
from vscan.v1 import encoder_pb2, visual_tokens_pb2
from vscan.wire import frame_sampling_to_proto


@dataclass(frozen=True, slots=True)
class ImageInput:
    """An image: its bytes, or the SHA-256 of them."""

    kind: ClassVar[MediaKind] = MediaKind.IMAGE
    field: str  # path in the request, for errors: "messages[1].parts[0].image"
    data: bytes | None = None
    sha256: bytes | None = None

    @property
    def has_content(self) -> bool:
        """Whether more than its name is there."""
        return self.data is not None

    async def digest(self) -> bytes:
        """Its name, 32 bytes."""
        data = self.data
        if data is None:
            return _stated(self.sha256, self.field)
        return await off_loop_if_large(len(data), lambda: hashlib.sha256(data).digest())

    def sampling_at(self, encoder: EncoderDescription) -> None:
        """Nothing of an image is sampled."""

    def encode_request(self, sha256: bytes, sampling: FrameSampling | None) -> encoder_pb2.EncodeRequest:
        """Content where it is there, else the name."""
        image = visual_tokens_pb2.Image
        return encoder_pb2.EncodeRequest(image=image(sha256=sha256) if self.data is None else image(data=self.data))


@dataclass(frozen=True, slots=True)
class VideoInput:
    """A video: its file, its frames, or the name of either (see `Video` of the contract)."""

    kind: ClassVar[MediaKind] = MediaKind.VIDEO
    field: str  # path in the request, for errors: "messages[1].parts[0].video"
    data: bytes | None = None
    frames: tuple[bytes, ...] = ()
    sha256: bytes | None = None
    sampling: FrameSampling | None = None  # None: the encoder's default

    @property
    def has_content(self) -> bool:
        """Whether more than its name is there."""
        return self.data is not None or bool(self.frames)

    async def digest(self) -> bytes:
        """Its name, 32 bytes."""
        data, frames = self.data, self.frames
        if data is not None:
            return await off_loop_if_large(len(data), lambda: hashlib.sha256(data).digest())
        if frames:
            return await off_loop_if_large(sum(map(len, frames)), lambda: frames_sha256(frames))
        return _stated(self.sha256, self.field)

    def sampling_at(self, encoder: EncoderDescription) -> FrameSampling:
        """Which of its frames that encoder looks at. Raises InvalidArgument if it takes no videos, or not this sampling."""
        if encoder.frame_sampling is None:
            raise InvalidArgument(self.field, f"{encoder.model} takes no videos")
        try:
            return filled_sampling(self.sampling, encoder.frame_sampling, sent_frames=bool(self.frames))
        except InvalidArgument as error:
            raise error.below(self.field) from error

    def encode_request(self, sha256: bytes, sampling: FrameSampling | None) -> encoder_pb2.EncodeRequest:
        """Content where it is there, else the name; with the sampling that the content key has."""
        if self.frames and isinstance(sampling, FrameCount):
            sampling = None  # the encoder's default, which cannot be asked for by name: all frames that are sent are looked at
        video = visual_tokens_pb2.Video(sampling=frame_sampling_to_proto(sampling))
        if self.data is not None:
            video.data = self.data
        elif self.frames:
            video.frames.images.extend(self.frames)
        else:
            video.sha256 = sha256
        return encoder_pb2.EncodeRequest(video=video)


MediaInput = ImageInput | VideoInput


def _stated(sha256: bytes | None, field: str) -> bytes:
    if sha256 is None:
        raise InvalidArgument(field, "neither bytes nor a digest")
    if len(sha256) != DIGEST_BYTES:
        raise InvalidArgument(f"{field}.sha256", f"{len(sha256)} bytes", limit=f"{DIGEST_BYTES} bytes")
    return sha256
