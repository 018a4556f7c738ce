"""Values to the messages of the answer's stream."""

from __future__ import annotations

from decoder_service.answering import Asked
from decoder_service.images import ResolvedImage
from decoder_service.pruning import visual_tokens_average
from decoder_service.request import Delta, FinishReason, LayerPruning, Result
from decoder_service.token_bytes import AnswerTokens
from vscan.v1 import decoder_pb2, visual_tokens_pb2

_REASONS: dict[FinishReason, decoder_pb2.FinishReason] = {
    FinishReason.END_OF_SEQUENCE: decoder_pb2.FINISH_REASON_END_OF_SEQUENCE,
    FinishReason.STOP_STRING: decoder_pb2.FINISH_REASON_STOP_STRING,
    FinishReason.LENGTH: decoder_pb2.FINISH_REASON_LENGTH,
    FinishReason.STOP_TOKEN: decoder_pb2.FINISH_REASON_STOP_TOKEN,
    FinishReason.CONSTRAINT: decoder_pb2.FINISH_REASON_CONSTRAINT,
}


def started(asked: Asked, *, report_kept: bool) -> decoder_pb2.GenerateEvent:
    """The first event."""
    return decoder_pb2.GenerateEvent(
        started=decoder_pb2.Started(
            request_id=asked.request.request_id,
            images=[_image_report(image, report_kept) for image in asked.images],
            prompt_tokens=asked.request.prompt.rows,
        )
    )


def delta(event: Delta, answers: AnswerTokens) -> decoder_pb2.GenerateEvent:
    """More of the answer."""
    tokens = [answers.message(event.sample, token) for token in event.tokens]
    reason = decoder_pb2.FINISH_REASON_UNSPECIFIED if event.reason is None else _REASONS[event.reason]
    delta = decoder_pb2.TextDelta(text=event.text, tokens=tokens, sample=event.sample, reason=reason)
    return decoder_pb2.GenerateEvent(delta=delta)


def finished(
    asked: Asked, result: Result, *, layers: int, time_to_first_token_ms: float, total_ms: float, report_kept: bool
) -> decoder_pb2.GenerateEvent:
    """The last event. `layers`: of the language model."""
    timings = decoder_pb2.GenerateTimings(
        resolve_images_ms=asked.resolve_images_ms,
        queue_ms=result.queue_ms,
        prefill_ms=result.prefill_ms,
        prune_ms=result.prune_ms,
        decode_ms=result.decode_ms,
        time_to_first_token_ms=time_to_first_token_ms,
        total_ms=total_ms,
    )
    return decoder_pb2.GenerateEvent(
        finished=decoder_pb2.Finished(
            reason=_REASONS[result.reason],
            usage=_usage(asked, result, layers),
            timings=timings,
            pruning=[_prune_report(layer, report_kept) for layer in result.pruning],
            seed=asked.request.sampling.seed,
            samples=[
                decoder_pb2.FinishedSample(
                    sample=each.sample, reason=_REASONS[each.reason], completion_tokens=each.completion_tokens
                )
                for each in result.samples
            ],
        )
    )


def _image_report(image: ResolvedImage, report_kept: bool) -> visual_tokens_pb2.ImageReport:
    return visual_tokens_pb2.ImageReport(
        sha256=image.sha256,
        tokens_before=image.tokens.unreduced_count,
        tokens_after=image.tokens.kept_count,
        place=int(image.place),  # type: ignore[arg-type]  # the same numbers
        kept=image.tokens.to_proto(with_tokens=False) if report_kept else None,
        frames=None if image.tokens.frames is None else image.tokens.frames.to_proto(),
    )


def _usage(asked: Asked, result: Result, layers: int) -> decoder_pb2.Usage:
    visual_tokens = asked.request.prompt.visual_rows
    return decoder_pb2.Usage(
        prompt_tokens=asked.request.prompt.rows,
        visual_tokens=visual_tokens,
        visual_tokens_unreduced=asked.visual_unreduced,
        visual_tokens_average=visual_tokens_average(visual_tokens, result.pruning, layers=layers),
        completion_tokens=result.completion_tokens,
        reused_prompt_tokens=result.reused_rows,
        reused_prompt_tokens_average=result.reused_rows_average,
    )


def _prune_report(pruned: LayerPruning, report_kept: bool) -> decoder_pb2.PruneReport:
    return decoder_pb2.PruneReport(
        layer=pruned.layer,
        tokens_before=pruned.tokens_before,
        tokens_after=pruned.tokens_after,
        survivors=[decoder_pb2.SurvivingTokens(rows=rows) for rows in pruned.survivors] if report_kept else [],
    )
