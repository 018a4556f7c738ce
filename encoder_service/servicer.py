"""The wire: messages to values and back. Errors leave as they are; the server's interceptors make statuses of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import vscan
from encoder_service.image_encoder import Encoding, ImageEncoder
from encoder_service.media import ImageFile, Media, SentFrames, VideoFile
from encoder_service.reply_size import too_large_to_send
from vscan.cache.place import Place
from vscan.content_key import DIGEST_BYTES
from vscan.errors import InvalidArgument
from vscan.offload import COPIES, off_loop_if_large
from vscan.rpc.tenant import current_caller, current_tenant
from vscan.specs import FrameSampling, ReductionSpec
from vscan.tensors import dtype_to_proto
from vscan.v1 import encoder_pb2 as pb
from vscan.v1 import encoder_pb2_grpc, visual_tokens_pb2
from vscan.visual_tokens import CODEC_VERSION
from vscan.wire import frame_sampling_from_proto, frame_sampling_to_proto, reduction_from_proto, reduction_to_proto

_PLACES: dict[Place, visual_tokens_pb2.Place] = {place: getattr(visual_tokens_pb2, f"PLACE_{place.name}") for place in Place}
_MOST_BESIDE_TENSORS = 2**20  # of a reply, bytes: tiles, frames, the report; numbers are shorter than those of the tensors
_FORMS = (pb.REPLY_FORM_UNSPECIFIED, pb.REPLY_FORM_INLINE, pb.REPLY_FORM_REFERENCE)


class EncoderServicer(encoder_pb2_grpc.VisionEncoderServicer):
    """`vscan.v1.VisionEncoder`."""

    def __init__(self, encoder: ImageEncoder, *, max_lookup_digests: int, max_queue: int, max_message_bytes: int) -> None:
        self._encoder = encoder
        self._max_message_bytes = max_message_bytes
        self._max_lookup_digests = max_lookup_digests
        self._description = _description(encoder, max_lookup_digests, max_queue, speaks_for_tenants=False)
        self._for_speakers = _description(encoder, max_lookup_digests, max_queue, speaks_for_tenants=True)

    async def Encode(self, request: pb.EncodeRequest, context: Any) -> pb.EncodeResponse:
        """Encodes one image or video, or finds its tokens."""
        if request.reply_form not in _FORMS:
            raise InvalidArgument("reply_form", f"unknown value {int(request.reply_form)}")
        reduction = reduction_from_proto(request.reduction)
        max_bytes = None if request.reply_form == pb.REPLY_FORM_REFERENCE else self._max_message_bytes
        if request.HasField("image") and request.HasField("video"):
            raise InvalidArgument("video", "set beside an image", limit="one of the two")
        if request.HasField("video"):
            encoding = await self._encode_video(request.video, reduction, max_bytes)
        elif request.HasField("image"):
            encoding = await self._encode_image(request.image, reduction, max_bytes)
        else:
            raise InvalidArgument("image", "neither image nor video is set")
        return await self._response(encoding, max_bytes)

    async def Lookup(self, request: pb.LookupRequest, context: Any) -> pb.LookupResponse:
        """Says where tokens of images are cached."""
        count = len(request.sha256)
        if not 1 <= count <= self._max_lookup_digests:
            raise InvalidArgument("sha256", f"{count} digests", limit=f"1 to {self._max_lookup_digests}")
        for index, digest in enumerate(request.sha256):
            _check_digest(digest, f"sha256[{index}]")
        reduction = reduction_from_proto(request.reduction)
        sampling = self._lookup_sampling(request)
        places = await self._encoder.lookup(request.sha256, reduction, current_tenant(), sampling)
        return pb.LookupResponse(results=map(_lookup_result, request.sha256, places))

    async def Describe(self, request: pb.DescribeEncoderRequest, context: Any) -> pb.DescribeEncoderResponse:
        """Describes the model, its limits and its defaults, and what the caller may do."""
        return self._for_speakers if current_caller().speaks_for_tenants else self._description

    async def _encode_image(self, image: visual_tokens_pb2.Image, reduction: ReductionSpec, max_bytes: int | None) -> Encoding:
        match image.WhichOneof("source"):
            case "data":
                return await self._encoder.encode(ImageFile(image.data), reduction, current_tenant(), max_bytes)
            case "sha256":
                _check_digest(image.sha256, "image.sha256")
                return await self._encoder.find(image.sha256, reduction, current_tenant())
            case _:
                raise InvalidArgument("image", "not set")

    async def _encode_video(self, video: visual_tokens_pb2.Video, reduction: ReductionSpec, max_bytes: int | None) -> Encoding:
        source = video.WhichOneof("source")
        asked = frame_sampling_from_proto(video.sampling, "video.sampling")
        sampling = self._encoder.filled_sampling(asked, sent_frames=source == "frames")
        media: Media
        match source:
            case "data":
                media = VideoFile(video.data, sampling)
            case "frames":
                media = SentFrames(tuple(video.frames.images), sampling)
            case "sha256":
                _check_digest(video.sha256, "video.sha256")
                return await self._encoder.find(video.sha256, reduction, current_tenant(), sampling)
            case _:
                raise InvalidArgument("video", "not set")
        return await self._encoder.encode(media, reduction, current_tenant(), max_bytes)

    def _lookup_sampling(self, request: pb.LookupRequest) -> FrameSampling | None:
        if not request.HasField("video_sampling"):
            return None
        asked = frame_sampling_from_proto(request.video_sampling, "video_sampling")
        return self._encoder.filled_sampling(asked, "video_sampling")

    async def _response(self, encoding: Encoding, max_bytes: int | None) -> pb.EncodeResponse:
        """With the tokens, where they are to be sent, in at most `max_bytes`."""
        value = encoding.value
        if max_bytes is not None and value.tokens.nbytes > max_bytes:
            raise too_large_to_send(value.tokens.nbytes, max_bytes)
        response = pb.EncodeResponse(
            report=visual_tokens_pb2.ImageReport(
                sha256=encoding.sha256,
                tokens_before=value.unreduced_count,
                tokens_after=value.kept_count,
                place=_PLACES[encoding.place],
                frames=None if value.frames is None else value.frames.to_proto(),
            ),
            content_key=encoding.content_key,
            fingerprint=self._encoder.identity.fingerprint,
            timings=pb.EncodeTimings(**asdict(encoding.timings)),
        )
        if max_bytes is not None:
            await off_loop_if_large(value.nbytes // COPIES, lambda: value.write_to(response.visual_tokens))
            # A message's size is known once all of it has been written.
            if value.nbytes + _MOST_BESIDE_TENSORS > max_bytes and (size_bytes := response.ByteSize()) > max_bytes:
                raise too_large_to_send(size_bytes, max_bytes)
        return response


def _check_digest(digest: bytes, field: str) -> None:
    if len(digest) != DIGEST_BYTES:
        raise InvalidArgument(field, f"{len(digest)} bytes", limit=f"exactly {DIGEST_BYTES} bytes")


def _lookup_result(digest: bytes, place: Place | None) -> pb.LookupResult:
    return pb.LookupResult(sha256=digest, place=_PLACES[place or Place.UNSPECIFIED])


def _description(
    encoder: ImageEncoder, max_lookup_digests: int, max_queue: int, *, speaks_for_tenants: bool
) -> pb.DescribeEncoderResponse:
    identity, limits, video = encoder.identity, encoder.limits.image, encoder.limits.video
    return pb.DescribeEncoderResponse(
        model=identity.model,
        family=identity.family,
        fingerprint=identity.fingerprint,
        pair_fingerprint=identity.pair_fingerprint,
        hidden_size=identity.hidden_size,
        dtype=dtype_to_proto(identity.dtype),
        tokens_per_tile=identity.tokens_per_tile,
        codec_version=CODEC_VERSION,
        limits=pb.EncoderLimits(
            max_image_bytes=limits.max_bytes,
            max_image_pixels=limits.max_pixels,
            min_image_side=limits.min_side,
            max_aspect_ratio=limits.max_aspect_ratio,
            max_lookup_digests=max_lookup_digests,
            max_queue=max_queue,
            max_video_bytes=video.max_bytes,
            max_video_seconds=video.max_seconds,
            max_video_frames=video.max_frames,
            max_video_frame_pixels=video.frame.max_pixels,
        ),
        defaults=pb.EncoderDefaults(
            reduction=reduction_to_proto(encoder.defaults),
            shallow_layer=identity.scan.shallow_layer,
            deep_layer=identity.scan.deep_layer,
            window=identity.scan.window,
            skip_padding=identity.scan.skip_padding,
            frame_sampling=None if encoder.frame_sampling is None else frame_sampling_to_proto(encoder.frame_sampling),
        ),
        release=vscan.__version__,
        speaks_for_tenants=speaks_for_tenants,
    )
