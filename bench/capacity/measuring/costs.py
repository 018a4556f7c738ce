"""The parts of a profile, from what was measured.

What a service does not tell itself is found by subtraction: of what is left of the time until the first token, and of processor
time, when all that is known is taken off.
"""

from __future__ import annotations

from functools import cached_property

from bench.capacity.curve import Curve
from bench.capacity.measuring.decoders import WORDS, DecoderMeasured
from bench.capacity.measuring.encoders import EncoderMeasured
from bench.capacity.measuring.questions import SIDE_PIXELS, Sample, mean
from bench.capacity.profile import CacheCosts, ClientCosts, DecoderCosts, EncoderCosts, KvMemory, WireCosts
from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings

_ENCODER, _DECODER = EncoderSettings.model_fields, DecoderSettings.model_fields


class Costs:
    """Kinds of samples: "hot" (the decoder has the tokens), "redis" (another one had them made), "encoded" (nobody had)."""

    def __init__(self, encoder: EncoderMeasured, decoder: DecoderMeasured) -> None:
        self._of_encoder, self._of_decoder = encoder, decoder
        self._usual = decoder.usual

    def encoder(self) -> EncoderCosts:
        """What did not fit between question and answer is done after it."""
        measured = self._of_encoder
        return EncoderCosts(
            pass_ms=measured.pass_ms,
            preprocess_ms=measured.preprocess_ms,
            request_ms=max(0.0, self._encoder_ms + min(0.0, self._way_ms)),
            end_ms=min(self._encoder_ms, max(0.0, -self._way_ms)),
            on_core=True,
            max_batch_tiles=_ENCODER["max_batch_tiles"].default,
            max_queue=_ENCODER["max_queue"].default,
        )

    def decoder(self, kv: KvMemory) -> DecoderCosts:
        """Steps as they were measured; `request_ms` is all between the call and the first token but the prompt's step."""
        measured = self._of_decoder
        return DecoderCosts(
            cold_ms=_curve(measured.cold_ms),
            hot_ms=_curve(measured.hot_ms),
            step_ms=_curve(measured.step_ms),
            shared_ms=measured.shared_ms,
            request_ms=self._first_ms("hot"),
            end_ms=max(0.0, self._busy_ms("hot") - self._first_ms("hot")),
            encoded_ms=self._further_ms("encoded"),
            redis_ms=self._further_ms("redis"),
            on_core=True,
            max_running=_DECODER["max_running"].default,
            max_queue=_DECODER["max_queue"].default,
            max_step_rows=_DECODER["max_step_rows"].default,
            engine_weight=measured.engine_weight,
            text_rows=self._usual["hot"][0].answer.usage.prompt_tokens - self._of_encoder.visual_rows - WORDS,
            kv=kv,
        )

    def cache(self, entry_bytes: float, redis_bytes: float) -> CacheCosts:
        """Redis' processor time for a read, and for all that a new entry takes beside two reads."""
        return CacheCosts(
            entry_bytes=entry_bytes,
            redis_bytes=redis_bytes,
            value_bytes=self._of_encoder.value_bytes,
            memory_bytes=_DECODER["cache_memory_bytes"].default,
            get_ms=self._get_ms,
            put_ms=self._put_ms,
        )

    def wire(self, token_bytes: float) -> WireCosts:
        """Bytes, and what of the time until the first token nobody computed in."""
        redis_ms = self._first_ms("redis") - self._first_ms("hot") - self._further_ms("redis") - self._get_ms
        return WireCosts(
            file_bytes=self._of_encoder.file_bytes,
            question_bytes=self._usual["hot"][0].answer.client.sent_bytes,
            token_bytes=token_bytes,
            reply_bytes=self._of_encoder.reply_bytes,
            file_ms=max(0.0, self._way_to_decoder_ms("encoded") - self._way_to_decoder_ms("hot")),
            hot_ms=0.0,  # within the client's `request_ms`
            encoded_ms=max(0.0, self._way_ms),
            redis_ms=max(0.0, redis_ms),
        )

    def client(self) -> ClientCosts:
        """`request_ms` is what the client saw of the time until the first token and the decoder did not: the wire is in it."""
        request_ms = self._way_to_decoder_ms("hot")
        busy_ms = mean(self._usual["hot"], lambda one: one.busy_ms["client"])
        token_ms = self._of_decoder.client_token_ms
        return ClientCosts(request_ms=request_ms, token_ms=token_ms, end_ms=max(0.0, busy_ms - request_ms))

    def _way_to_decoder_ms(self, kind: str) -> float:
        """What the client saw until the first token and the decoder did not."""
        return mean(self._usual[kind], lambda one: one.client_first_ms - one.server_first_ms)

    def _first_ms(self, kind: str) -> float:
        """Until the first token, as the decoder measured it, without the prompt's step."""
        return mean(self._usual[kind], _beside_prompt_ms)

    def _busy_ms(self, kind: str) -> float:
        """Of the decoder's processor time, without the prompt's step."""
        return mean(self._usual[kind], lambda one: one.busy_ms["decoder"] - one.answer.timings.prefill_ms)

    def _further_ms(self, kind: str) -> float:
        return max(0.0, self._busy_ms(kind) - self._busy_ms("hot"))

    @cached_property
    def _get_ms(self) -> float:
        return mean(self._usual["redis"], lambda one: one.busy_ms["redis"])

    @cached_property
    def _put_ms(self) -> float:
        return max(0.0, mean(self._usual["encoded"], lambda one: one.busy_ms["redis"]) - 2 * self._get_ms)

    @cached_property
    def _model_ms(self) -> float:
        return self._of_encoder.pass_ms.at(self._of_encoder.tiles) + self._of_encoder.preprocess_ms.at(SIDE_PIXELS**2)

    @cached_property
    def _encoder_ms(self) -> float:
        """Of the encoder's processor time, without decoding and pass."""
        return max(0.0, mean(self._usual["encoded"], lambda one: one.busy_ms["encoder"]) - self._model_ms)

    @cached_property
    def _way_ms(self) -> float:
        """What is left of the time that a new image takes more than a known one: below 0 where some was done after it."""
        further = self._first_ms("encoded") - self._first_ms("hot") - self._further_ms("encoded")
        return further - self._model_ms - self._encoder_ms - 2 * self._get_ms - self._put_ms


def _beside_prompt_ms(sample: Sample) -> float:
    return sample.server_first_ms - sample.answer.timings.prefill_ms


def _curve(values: dict[int, float]) -> Curve:
    return Curve(points=tuple(sorted(values.items())))
