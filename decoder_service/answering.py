"""What one question goes through before the engine has it: tokens, images and videos, prompt, plan."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from decoder_service.constraint.grammar import Grammar
from decoder_service.constraint.grammars import Grammars
from decoder_service.engine_loop import EngineLoop, Submission
from decoder_service.images import ImageResolver, ResolvedImage
from decoder_service.limits import Limits, SamplingDefaults
from decoder_service.media import MediaInput
from decoder_service.prompt import PromptWriter
from decoder_service.pruning import plan_pruning
from decoder_service.question import Question
from decoder_service.request import EngineRequest, Prompt, Pruning
from vscan.errors import InvalidArgument
from vscan.rpc.deadlines import Deadline
from vscan.specs import KeepRatio, PruneSpec, ReductionSpec

T = TypeVar("T")

# Rendering and tokenising this many characters takes about a millisecond; more would delay other requests' tokens.
_OFF_LOOP_CHARS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage2:
    """How this deployment prunes."""

    layers: int  # of the language model
    prune_layers: tuple[int, ...]
    defaults: PruneSpec  # every field set but the budgets
    keep: KeepRatio  # at each layer, where neither the request nor its target average says


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question that is ready for the engine."""

    request: EngineRequest
    images: tuple[ResolvedImage, ...]  # and videos, in the prompt's order
    resolve_images_ms: float

    @property
    def visual_unreduced(self) -> int:
        """Visual tokens before stage 1."""
        return sum(image.tokens.unreduced_count for image in self.images)


class Answering:
    """Belongs to one event loop."""

    def __init__(
        self,
        *,
        writer: PromptWriter,
        resolver: ImageResolver,
        engine: EngineLoop,
        grammars: Grammars,
        limits: Limits,
        sampling: SamplingDefaults,
        stage2: Stage2,
        positions: Callable[[Prompt], int],
    ) -> None:
        """
        Args:
            positions: how many a prompt takes, by the language model's family; raises InvalidArgument for what it
                cannot lay out.
        """
        self.limits = limits
        self.sampling = sampling
        self.stage2 = stage2
        self.resolver = resolver
        self._writer = writer
        self._engine = engine
        self._grammars = grammars
        self._positions = positions

    async def prepare(self, question: Question, *, tenant: str, deadline: Deadline, trace_context: Mapping[str, str]) -> Asked:
        """Tokenises, finds the images' tokens, lays out the prompt, decides sampling and pruning.

        Cheap refusals come first: no image is looked for where the text alone is too long.

        Raises:
            VScanError: what `PromptWriter.ids`, `Grammars.get`, `ImageResolver.resolve` and `plan_pruning` raise.
        """
        ids = await self._tokenise(question)
        self.limits.check_prompt(len(ids), question.sampling, field=question.prompt_field)
        grammar = await self._grammar(question, tenant)
        started = time.perf_counter()
        media = self._writer.in_prompt_order(ids, question.media)
        images = await self._resolve(media, question.reduction, tenant, deadline)
        resolve_images_ms = (time.perf_counter() - started) * 1e3
        prompt = self._writer.lay_out(ids, [image.tokens for image in images])
        prompt = replace(prompt, image_keys=tuple(image.content_key for image in images))
        positions = self._positions_of(prompt, media)
        self.limits.check_prompt(prompt.rows, question.sampling, field=question.prompt_field, positions=positions)
        request = EngineRequest(
            request_id=uuid.uuid4().hex,
            prompt=prompt,
            sampling=self.sampling.fill(question.sampling, rows=prompt.rows, positions=positions, limits=self.limits),
            pruning=self._plan(question, prompt),
            grammar=grammar,
            tenant=tenant,
            priority=question.priority,
            deadline=deadline,
            trace_context=trace_context,
        )
        return Asked(request=request, images=images, resolve_images_ms=resolve_images_ms)

    async def submit(self, asked: Asked) -> Submission:
        """Hands it to the engine. Raises what `EngineLoop.submit` raises."""
        return await self._engine.submit(asked.request)

    def _positions_of(self, prompt: Prompt, media: Sequence[MediaInput]) -> int:
        """The family names an image by its number in the prompt; the caller has it somewhere in a message."""
        try:
            return self._positions(prompt)
        except InvalidArgument as error:
            field = re.fullmatch(r"images\[(\d+)\]", error.field)
            if field is None:
                raise
            raise InvalidArgument(media[int(field[1])].field, error.problem, limit=error.limit) from error

    async def _tokenise(self, question: Question) -> list[int]:
        if question.text_chars <= _OFF_LOOP_CHARS:
            return self._writer.ids(question.prompt)
        return await asyncio.to_thread(self._writer.ids, question.prompt)

    async def _grammar(self, question: Question, tenant: str) -> Grammar | None:
        constraint = question.sampling.constraint
        return None if constraint is None else await self._grammars.get(constraint, tenant=tenant)

    async def _resolve(
        self, media: Sequence[MediaInput], reduction: ReductionSpec, tenant: str, deadline: Deadline
    ) -> tuple[ResolvedImage, ...]:
        if not media:
            return ()
        return tuple(await self.resolver.resolve(media, reduction, tenant, deadline=deadline))

    def _plan(self, question: Question, prompt: Prompt) -> Pruning:
        return plan_pruning(
            question.prune.filled_from(self.stage2.defaults),
            reduction=self._reduction(question.reduction),
            prune_layers=self.stage2.prune_layers,
            layers=self.stage2.layers,
            visual_tokens=prompt.visual_rows,
            visual_unreduced=sum(image.unreduced_count for image in prompt.images),
            images=len(prompt.images),
            default_keep=self.stage2.keep,
        )

    def _reduction(self, asked: ReductionSpec) -> ReductionSpec:
        encoder = self.resolver.encoder
        return asked if encoder is None else asked.filled_from(encoder.defaults)
