"""The service `vscan.v1.Decoder`: messages to values and back, nothing else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

import vscan
from decoder_service import replies
from decoder_service.answering import Answering, Asked
from decoder_service.chat import RawPrompt
from decoder_service.constraint.vocabulary import Vocabulary
from decoder_service.observation import Observation, Observer
from decoder_service.question import Question, read_question
from decoder_service.request import Delta
from decoder_service.token_bytes import AnswerTokens
from vscan.errors import PermissionDenied, Unavailable
from vscan.rpc.deadlines import Deadline
from vscan.rpc.tenant import current_tenant
from vscan.specs import SamplingSpec
from vscan.v1 import decoder_pb2, decoder_pb2_grpc
from vscan.wire import prune_to_proto, reduction_to_proto, sampling_to_proto

SERVICE = decoder_pb2.DESCRIPTOR.services_by_name["Decoder"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this decoder is."""

    model: str
    family: str
    takes_videos: bool
    pair_fingerprint: bytes
    raw_prompts: bool


class DecoderServicer(decoder_pb2_grpc.DecoderServicer):
    """Answers Unavailable until `open` was called, so that the port can tell its health while the model is being loaded."""

    def __init__(self) -> None:
        self._opened: _Opened | None = None

    def open(self, answering: Answering, observer: Observer, identity: Identity, vocabulary: Vocabulary) -> None:
        """From now on questions are answered."""
        self._opened = _Opened(answering, observer, identity, vocabulary)

    async def Generate(self, request: decoder_pb2.GenerateRequest, context: Any) -> AsyncIterator[decoder_pb2.GenerateEvent]:
        """See decoder.proto."""
        opened = self._ready()
        with opened.observer.watch(request.WhichOneof("prompt")) as observation:
            question = opened.read(request)
            observation.asked(question)
            asked = await opened.answering.prepare(
                question,
                tenant=current_tenant(),
                deadline=Deadline.of(context),
                trace_context=observation.trace_context(),
            )
            async with aclosing(opened.answer(asked, question, observation)) as events:
                async for event in events:
                    yield event

    async def Describe(self, request: decoder_pb2.DescribeDecoderRequest, context: Any) -> decoder_pb2.DescribeDecoderResponse:
        """See decoder.proto."""
        return self._ready().describe()

    def _ready(self) -> _Opened:
        if self._opened is None:
            raise Unavailable("the model is being loaded")
        return self._opened


@dataclass(frozen=True, slots=True)
class _Opened:
    answering: Answering
    observer: Observer
    identity: Identity
    vocabulary: Vocabulary

    def read(self, request: decoder_pb2.GenerateRequest) -> Question:
        videoless = None if self.identity.takes_videos else self.identity.family
        question = read_question(request, self.answering.limits, videoless=videoless)
        if isinstance(question.prompt, RawPrompt) and not self.identity.raw_prompts:
            raise PermissionDenied("raw: raw prompts are not allowed here; send a chat")
        return question

    async def answer(
        self, asked: Asked, question: Question, observation: Observation
    ) -> AsyncGenerator[decoder_pb2.GenerateEvent, None]:
        """The stream of one accepted question. Closing it early cancels the request in the engine."""
        tokens = AnswerTokens(self.vocabulary)
        async with await self.answering.submit(asked) as events:
            observation.accepted(asked)
            yield replies.started(asked, report_kept=question.report_kept)
            async for event in events:
                if isinstance(event, Delta):
                    observation.token_came(event, events.came_s)
                    yield replies.delta(event, tokens)
                    continue
                observation.finished(asked, event)
                yield replies.finished(
                    asked,
                    event,
                    layers=self.answering.stage2.layers,
                    time_to_first_token_ms=observation.time_to_first_token_ms,
                    total_ms=observation.elapsed_ms,
                    report_kept=question.report_kept,
                )

    def describe(self) -> decoder_pb2.DescribeDecoderResponse:
        stage2, encoder = self.answering.stage2, self.answering.resolver.encoder
        return decoder_pb2.DescribeDecoderResponse(
            model=self.identity.model,
            family=self.identity.family,
            pair_fingerprint=self.identity.pair_fingerprint,
            encoder_fingerprint=b"" if encoder is None else encoder.fingerprint,
            layers=stage2.layers,
            raw_prompts=self.identity.raw_prompts,
            limits=decoder_pb2.DecoderLimits(**asdict(self.answering.limits)),
            defaults=decoder_pb2.DecoderDefaults(
                prune=prune_to_proto(stage2.defaults),
                prune_layers=stage2.prune_layers,
                sampling=sampling_to_proto(SamplingSpec(**asdict(self.answering.sampling))),
                reduction=None if encoder is None else reduction_to_proto(encoder.defaults),
            ),
            release=vscan.__version__,
        )
