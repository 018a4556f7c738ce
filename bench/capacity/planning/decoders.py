"""One decoder under its share of requests.

Its engine's time goes to prompts (and, on a CPU, to the requests' other work) and to steps of the n answers under way. A step
takes D(n), stretched by what prompts take meanwhile; with Little's law

    L = D(n) / (1 - u),  u = rate x (prompt + other work)         n = rate x (tokens - 1) x L

which is iterated from one answer on. Beyond `max_running` answers, or as many as the KV cache holds, the queue only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from bench.capacity.curve import NotMeasured, curve_at, measured
from bench.capacity.demand import Demand
from bench.capacity.profile import Profile
from bench.capacity.queueing import Wait, wait

_ROUNDS = 200
_CLOSE = 1e-4


@dataclass(frozen=True, slots=True)
class DecoderLoad:
    """What one decoder does."""

    utilisation: float  # of its engine, with as many answers as may run
    answers: float  # under way, on average
    step_ms: float  # from one token of an answer to the next
    room: Wait  # for a place among those that run
    step: Wait  # for the step under way, and prompts before one's own
    hot_ms: float  # until the first token where nobody is waited for
    cold_further_ms: float  # of a prompt whose prefix is not there
    redis_further_ms: float  # of one whose images come from Redis


class DecoderModel:
    """Raises NotMeasured where a figure lacks."""

    def __init__(self, profile: Profile, demand: Demand) -> None:
        costs, client = profile.decoder, profile.client
        rows = profile.prompt_rows(demand.question_tokens, demand.images)
        if costs.step_ms is None:
            raise NotMeasured("a decoder's steps (decoder.step_ms)")
        self._step_ms = costs.step_ms
        self._tokens = demand.answer_tokens
        self._shared_ms = measured(costs.shared_ms, "what prompts share with a step (decoder.shared_ms)")
        self._hot_ms = curve_at(costs.hot_ms, rows, "a hot prompt (decoder.hot_ms)")
        self._cold_ms = max(self._hot_ms, curve_at(costs.cold_ms, rows, "a cold prompt (decoder.cold_ms)"))
        # Of several images the prefix is there only for the same ones in the same order, which nobody promises.
        self._known = demand.repeat_rate if demand.images == 1 else 0.0
        self._images_from_caches = demand.images * demand.repeat_rate
        self._images = demand.images
        new = demand.new_share * demand.new_images
        first_ms = measured(costs.request_ms, "a request's processor time (decoder.request_ms)")
        ends_ms = measured(costs.end_ms, "a request's processor time at its end (decoder.end_ms)")
        ends_ms += new * measured(costs.encoded_ms, "a question to the encoder (decoder.encoded_ms)")
        self._other_ms = (first_ms + ends_ms) if costs.on_core else 0.0
        self._redis_core_ms = measured(costs.redis_ms, "what a find in Redis takes (decoder.redis_ms)")
        self._redis_way_ms = measured(profile.wire.redis_ms, "the way to Redis (wire.redis_ms)")
        self._on_core = costs.on_core
        weight = measured(costs.engine_weight, "decoder.engine_weight") if costs.on_core else 0.0
        self._stretched_ms = weight * first_ms  # by what the engine does on the same core
        way_ms = measured(profile.wire.hot_ms, "the way to the decoder (wire.hot_ms)")
        self._before_ms = first_ms + way_ms + measured(client.request_ms, "a question's processor time (client.request_ms)")
        layout = costs.kv.layout
        self.request_pages = layout.pages(profile.segment_rows(demand.question_tokens, demand.images, demand.answer_tokens))
        self.pages = (costs.kv.cache_bytes or 0) // layout.page_bytes
        self.page_bytes = layout.page_bytes
        self.by_memory = self.pages // self.request_pages
        self.running = int(min(costs.max_running, self._step_ms.largest, self.by_memory))
        blocks = (profile.decoder.text_rows + demand.images * profile.visual_rows) // layout.block_rows
        self._prefix_pages = max(1, layout.block_pages([blocks] + [0] * (len(layout.segments) - 1)))
        self._full_pages = ceil(demand.utilisation * self.running) * self.request_pages

    @property
    def prefixes(self) -> int:
        """Of images, that fit the KV cache beside the answers under way."""
        return max(0, self.pages - self._full_pages) // self._prefix_pages

    def _prompt_ms(self, kept: float) -> float:
        hot = self._known * kept
        return self._beside((1 - hot) * self._cold_ms + hot * self._hot_ms)

    def _other(self, in_memory: float) -> float:
        from_redis = self._images_from_caches * (1 - in_memory)
        return self._other_ms + (from_redis * self._redis_core_ms if self._on_core else 0.0)

    def _beside(self, alone_ms: float) -> float:
        return max(0.0, alone_ms - self._shared_ms)

    def least_ms(self, kept: float = 1.0, in_memory: float = 1.0) -> float:
        """Of its engine for a request, with as many answers as may run. Raises ValueError where none fits the KV cache."""
        if self.running < 1:
            raise ValueError(f"a request takes {self.request_pages} pages of KV cache, and there are {self.pages} (--kv-bytes)")
        return (
            self._prompt_ms(kept) + self._other(in_memory) + (self._tokens - 1) * self._step_ms.at(self.running) / self.running
        )

    def load(self, per_second: float, kept: float = 1.0, in_memory: float = 1.0) -> DecoderLoad:
        """Of repeated images the share `kept` has its prefix in the KV cache, and `in_memory` its tokens in the memory tier.

        Raises ValueError where the queue only grows.
        """
        prompt_ms, other_ms = self._prompt_ms(kept), self._other(in_memory)
        busy = per_second * self.least_ms(kept, in_memory) / 1e3
        taken = per_second * (prompt_ms + other_ms) / 1e3
        if busy >= 1 or taken >= 1:
            raise ValueError("decoders are overloaded")
        answers, step_ms = self._answers(per_second, taken)
        base_ms = self._step_ms.at(answers) if answers >= 1 else self._shared_ms
        # How much of the time a step is under way: all of it from one answer on.
        running = min(1.0, taken + answers)
        length_ms = base_ms + prompt_ms
        step = Wait(running, length_ms / 2 / (1 - taken))
        # Who waits for a place finds all taken, and steps as long as they are then.
        full_ms = self._step_ms.at(self.running) / (1 - taken)
        in_engine_ms = length_ms + (self._tokens - 1) * max(step_ms, full_ms)
        if per_second * in_engine_ms / 1e3 >= self.running:
            raise ValueError("decoders are overloaded")
        room = wait(self.running, per_second, in_engine_ms)
        first_ms = self._before_ms + running * self._stretched_ms + base_ms + self._beside(self._hot_ms)
        redis_ms = self._images * (self._redis_core_ms + self._redis_way_ms)
        return DecoderLoad(busy, answers, step_ms, room, step, first_ms, self._cold_ms - self._hot_ms, redis_ms)

    def _answers(self, per_second: float, taken: float) -> tuple[float, float]:
        answers = 0.0
        for _ in range(_ROUNDS):
            step_ms = self._step_ms.at(min(answers, self.running)) / (1 - taken)
            more = per_second * (self._tokens - 1) * step_ms / 1e3
            if more > self.running:
                raise ValueError("decoders are overloaded")
            if abs(more - answers) < _CLOSE:
                return answers, step_ms
            answers = more
        raise ValueError("decoders are overloaded")  # so near to it that the answers under way hardly stop becoming more
