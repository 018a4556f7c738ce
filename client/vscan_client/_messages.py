"""Between the SDK's values and the contract's messages: every request is built here and every reply is read here.

Of the rest of the SDK only the transport (`async_client.py`, `async_stream.py`) knows generated types, to send what comes from
here and to hand back what arrives; it looks into none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from vscan import wire
from vscan.errors import InvalidArgument
from vscan.specs import ReductionSpec
from vscan.v1 import decoder_pb2, encoder_pb2, tensor_pb2, visual_tokens_pb2
from vscan_client._core import Question, RawPrompt
from vscan_client.answer import (
    Area,
    Event,
    Finished,
    FinishReason,
    ImageReport,
    Kept,
    PickedBy,
    Place,
    PruneReport,
    SampledFrames,
    SampleEnd,
    Started,
    TextDelta,
    TileGrid,
    Timings,
    Token,
    Usage,
)
from vscan_client.content import Image, Message, Role, Text, Video, Visual
from vscan_client.description import DecoderDescription, EncoderDescription
from vscan_client.encoded import Encoded, EncodeTimings, TensorBytes

# An image or video as it goes: with its bytes, or with its digest alone.
Form: TypeAlias = Callable[[Visual], Visual]

_ROLES = {Role.SYSTEM: decoder_pb2.ROLE_SYSTEM, Role.USER: decoder_pb2.ROLE_USER, Role.ASSISTANT: decoder_pb2.ROLE_ASSISTANT}
_REASONS = {
    decoder_pb2.FINISH_REASON_END_OF_SEQUENCE: FinishReason.END_OF_SEQUENCE,
    decoder_pb2.FINISH_REASON_STOP_STRING: FinishReason.STOP_STRING,
    decoder_pb2.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    decoder_pb2.FINISH_REASON_STOP_TOKEN: FinishReason.STOP_TOKEN,
    decoder_pb2.FINISH_REASON_CONSTRAINT: FinishReason.CONSTRAINT,
}
_PLACES = {
    visual_tokens_pb2.PLACE_ENCODED: Place.ENCODED,
    visual_tokens_pb2.PLACE_MEMORY: Place.MEMORY,
    visual_tokens_pb2.PLACE_REDIS: Place.REDIS,
    visual_tokens_pb2.PLACE_SHARED: Place.SHARED,
    visual_tokens_pb2.PLACE_ENCODER_MEMORY: Place.ENCODER_MEMORY,
}
_SCANS = {
    visual_tokens_pb2.PICKED_BY_LOCAL: PickedBy.LOCAL,
    visual_tokens_pb2.PICKED_BY_GLOBAL: PickedBy.GLOBAL,
    visual_tokens_pb2.PICKED_BY_RANDOM: PickedBy.RANDOM,
    visual_tokens_pb2.PICKED_BY_ALL: PickedBy.ALL,
    visual_tokens_pb2.PICKED_BY_POOL: PickedBy.POOL,
    visual_tokens_pb2.PICKED_BY_NEWLINE: PickedBy.NEWLINE,
    visual_tokens_pb2.PICKED_BY_CLASS: PickedBy.CLASS,
}
_DTYPES = {
    tensor_pb2.DTYPE_FLOAT32: "float32",
    tensor_pb2.DTYPE_FLOAT16: "float16",
    tensor_pb2.DTYPE_BFLOAT16: "bfloat16",
}


def generate_request(question: Question, form: Form) -> decoder_pb2.GenerateRequest:
    """A question, with each image and video as `form` gives it; what is `None` stays unset.

    Raises:
        InvalidArgument: a number that the wire cannot hold.
    """
    prompt, options = question.prompt, question.options
    prune, sampling = options.get("prune"), options.get("sampling")
    return decoder_pb2.GenerateRequest(
        chat=None if isinstance(prompt, RawPrompt) else _chat(prompt, form),
        raw=_raw(prompt, form) if isinstance(prompt, RawPrompt) else None,
        reduction=wire.reduction_to_proto(question.reduction) if question.reduction else None,
        prune=wire.prune_to_proto(prune) if prune else None,
        sampling=wire.sampling_to_proto(sampling) if sampling else None,
        report_kept=options.get("report_kept", False),
        priority=_priority(options.get("priority", 0)),
    )


def encode_request(visual: Visual, reduction: ReductionSpec | None, *, tokens: bool) -> encoder_pb2.EncodeRequest:
    """An image or video to encode, with or without the tokens in the reply."""
    return encoder_pb2.EncodeRequest(
        image=_image(visual) if isinstance(visual, Image) else None,
        video=_video(visual) if isinstance(visual, Video) else None,
        reduction=wire.reduction_to_proto(reduction) if reduction else None,
        reply_form=encoder_pb2.REPLY_FORM_INLINE if tokens else encoder_pb2.REPLY_FORM_REFERENCE,
    )


def lookup_request(visuals: tuple[Visual, ...], reduction: ReductionSpec | None) -> encoder_pb2.LookupRequest:
    """Digests to look for.

    Raises:
        InvalidArgument: images beside videos, or videos of several samplings; the contract takes one of these at a time.
    """
    kinds = {(type(visual), getattr(visual, "sampling", None)) for visual in visuals}
    if len(kinds) > 1:
        raise InvalidArgument("images", "of several kinds", limit="images alone, or videos of one sampling, in one lookup")
    videos = [visual for visual in visuals if isinstance(visual, Video)]
    return encoder_pb2.LookupRequest(
        sha256=[visual.sha256 for visual in visuals],
        reduction=wire.reduction_to_proto(reduction) if reduction else None,
        video_sampling=wire.frame_sampling_to_proto(videos[0].sampling) if videos else None,
    )


def describe_decoder_request() -> decoder_pb2.DescribeDecoderRequest:
    """Asks the decoder who it is."""
    return decoder_pb2.DescribeDecoderRequest()


def describe_encoder_request() -> encoder_pb2.DescribeEncoderRequest:
    """Asks the encoder who it is."""
    return encoder_pb2.DescribeEncoderRequest()


def event_from_proto(message: decoder_pb2.GenerateEvent) -> Event | None:
    """The event of a message; `None` for one that a later release added and that can be passed over."""
    match message.WhichOneof("event"):
        case "started":
            started = message.started
            return Started(started.request_id, tuple(image_report(image) for image in started.images), started.prompt_tokens)
        case "delta":
            return _text_delta(message.delta)
        case "finished":
            return _finished(message.finished)
        case _:
            return None


def image_report(message: visual_tokens_pb2.ImageReport) -> ImageReport:
    """What became of one image or video."""
    return ImageReport(
        sha256=message.sha256,
        tokens_before=message.tokens_before,
        tokens_after=message.tokens_after,
        place=_PLACES.get(message.place, Place.UNKNOWN),
        kept=_kept(message.kept) if message.HasField("kept") else None,
        frames=_sampled_frames(message.frames) if message.HasField("frames") else None,
    )


def encoded(message: encoder_pb2.EncodeResponse) -> Encoded:
    """One image or video, encoded."""
    inline = message.visual_tokens if message.HasField("visual_tokens") else None
    return Encoded(
        image=image_report(message.report),
        content_key=message.content_key,
        fingerprint=message.fingerprint,
        timings=_encode_timings(message.timings),
        tokens=_tensor(inline.tokens) if inline else None,
        kept=_kept(inline) if inline else None,
    )


def places(message: encoder_pb2.LookupResponse) -> tuple[Place | None, ...]:
    """Where the tokens of each are; `None`: nowhere."""
    return tuple(_PLACES.get(result.place) for result in message.results)


def decoder_description(message: decoder_pb2.DescribeDecoderResponse) -> DecoderDescription:
    """The decoder, described."""
    defaults = message.defaults
    return DecoderDescription(
        model=message.model,
        family=message.family,
        release=message.release,
        pair_fingerprint=message.pair_fingerprint,
        encoder_fingerprint=message.encoder_fingerprint,
        layers=message.layers,
        raw_prompts=message.raw_prompts,
        prune_layers=tuple(defaults.prune_layers),
        prune=wire.prune_from_proto(defaults.prune),
        sampling=wire.sampling_from_proto(defaults.sampling),
        reduction=wire.reduction_from_proto(defaults.reduction),
        limits={field.name: getattr(message.limits, field.name) for field in message.limits.DESCRIPTOR.fields},
    )


def encoder_description(message: encoder_pb2.DescribeEncoderResponse) -> EncoderDescription:
    """The encoder, described."""
    defaults = message.defaults
    return EncoderDescription(
        model=message.model,
        family=message.family,
        release=message.release,
        fingerprint=message.fingerprint,
        pair_fingerprint=message.pair_fingerprint,
        hidden_size=message.hidden_size,
        dtype=_DTYPES.get(message.dtype, "unknown"),
        tokens_per_tile=message.tokens_per_tile,
        codec_version=message.codec_version,
        shallow_layer=defaults.shallow_layer,
        deep_layer=defaults.deep_layer,
        window=defaults.window,
        skip_padding=defaults.skip_padding,
        reduction=wire.reduction_from_proto(defaults.reduction),
        limits={field.name: getattr(message.limits, field.name) for field in message.limits.DESCRIPTOR.fields},
        frame_sampling=wire.frame_sampling_from_proto(defaults.frame_sampling, "defaults.frame_sampling"),
    )


def _chat(messages: tuple[Message, ...], form: Form) -> decoder_pb2.Chat:
    return decoder_pb2.Chat(
        messages=[
            decoder_pb2.Message(role=_ROLES[message.role], parts=[_part(part, form) for part in message.parts])
            for message in messages
        ]
    )


def _part(part: Text | Visual, form: Form) -> decoder_pb2.Part:
    if isinstance(part, Text):
        return decoder_pb2.Part(text=part.text)
    sent = form(part)
    return decoder_pb2.Part(image=_image(sent)) if isinstance(sent, Image) else decoder_pb2.Part(video=_video(sent))


def _raw(prompt: RawPrompt, form: Form) -> decoder_pb2.RawPrompt:
    sent = RawPrompt.about([form(visual) for visual in prompt.visuals], prompt.text)
    return decoder_pb2.RawPrompt(
        text=sent.text, images=[_image(image) for image in sent.images], videos=[_video(video) for video in sent.videos]
    )


def _image(image: Image) -> visual_tokens_pb2.Image:
    if image.data is None:
        return visual_tokens_pb2.Image(sha256=image.sha256)
    return visual_tokens_pb2.Image(data=image.data)


def _video(video: Video) -> visual_tokens_pb2.Video:
    sampling = wire.frame_sampling_to_proto(video.sampling) if video.sampling else None
    if video.frames:
        return visual_tokens_pb2.Video(frames=visual_tokens_pb2.VideoFrames(images=video.frames), sampling=sampling)
    if video.data is None:
        return visual_tokens_pb2.Video(sha256=video.sha256, sampling=sampling)
    return visual_tokens_pb2.Video(data=video.data, sampling=sampling)


def _priority(priority: int) -> int:
    """As it is, where the wire can hold it: which ones are good is the server's to say."""
    if not -(2**31) <= priority < 2**31:
        raise InvalidArgument("priority", f"{priority}", limit="-2^31 to 2^31 - 1")
    return priority


def _text_delta(message: decoder_pb2.TextDelta) -> TextDelta:
    goes_on = message.reason == decoder_pb2.FINISH_REASON_UNSPECIFIED
    return TextDelta(
        message.text,
        tuple(_token(token) for token in message.tokens),
        message.sample,
        None if goes_on else _reason(message.reason),
    )


def _reason(reason: decoder_pb2.FinishReason) -> FinishReason:
    return _REASONS.get(reason, FinishReason.UNKNOWN)


def _token(message: decoder_pb2.GeneratedToken) -> Token:
    return Token(
        message.token_id,
        message.logprob if message.HasField("logprob") else None,
        tuple((top.token_id, top.logprob) for top in message.top),
        _text_bytes(message),
        tuple(_text_bytes(top) for top in message.top),
    )


def _text_bytes(message: decoder_pb2.GeneratedToken | decoder_pb2.TokenLogprob) -> bytes | None:
    return message.text if message.HasField("text") else None


def _finished(message: decoder_pb2.Finished) -> Finished:
    usage, timings = message.usage, message.timings
    return Finished(
        reason=_reason(message.reason),
        usage=Usage(
            prompt_tokens=usage.prompt_tokens,
            visual_tokens=usage.visual_tokens,
            visual_tokens_unreduced=usage.visual_tokens_unreduced,
            visual_tokens_average=usage.visual_tokens_average,
            completion_tokens=usage.completion_tokens,
            reused_prompt_tokens=usage.reused_prompt_tokens if usage.HasField("reused_prompt_tokens") else None,
            reused_prompt_tokens_average=(
                usage.reused_prompt_tokens_average if usage.HasField("reused_prompt_tokens_average") else None
            ),
        ),
        timings=Timings(
            resolve_images_ms=timings.resolve_images_ms,
            queue_ms=timings.queue_ms,
            prefill_ms=timings.prefill_ms,
            prune_ms=timings.prune_ms,
            decode_ms=timings.decode_ms,
            time_to_first_token_ms=timings.time_to_first_token_ms,
            total_ms=timings.total_ms,
        ),
        pruning=tuple(_prune_report(report) for report in message.pruning),
        seed=message.seed,
        samples=tuple(SampleEnd(each.sample, _reason(each.reason), each.completion_tokens) for each in message.samples),
    )


def _prune_report(message: decoder_pb2.PruneReport) -> PruneReport:
    survivors = tuple(tuple(image.rows) for image in message.survivors)
    return PruneReport(message.layer, message.tokens_before, message.tokens_after, survivors)


def _kept(message: visual_tokens_pb2.VisualTokens) -> Kept:
    return Kept(
        kept_indices=tuple(message.kept_indices),
        picked_by=tuple(_SCANS.get(scan, PickedBy.UNKNOWN) for scan in message.picked_by),
        merged_into=tuple(message.merged_into),
        tiles=tuple(map(_tile_grid, message.tiles)),
        unreduced_count=message.unreduced_count,
    )


def _tile_grid(message: visual_tokens_pb2.Tile) -> TileGrid:
    stated = message.area
    area = Area(stated.left, stated.top, stated.right, stated.bottom) if message.HasField("area") else None
    return TileGrid(message.rows, message.columns, message.kept_count, area)


def _sampled_frames(message: visual_tokens_pb2.SampledFrames) -> SampledFrames:
    return SampledFrames(tuple(message.seconds), message.duration_seconds, message.interval_seconds)


def _tensor(message: tensor_pb2.Tensor) -> TensorBytes:
    return TensorBytes(dtype=_DTYPES.get(message.dtype, "unknown"), shape=tuple(message.shape), data=message.data)


def _encode_timings(message: encoder_pb2.EncodeTimings) -> EncodeTimings:
    return EncodeTimings(
        queue_ms=message.queue_ms,
        decode_image_ms=message.decode_image_ms,
        vit_ms=message.vit_ms,
        reduce_ms=message.reduce_ms,
        cache_get_ms=message.cache_get_ms,
        cache_put_ms=message.cache_put_ms,
        total_ms=message.total_ms,
    )
