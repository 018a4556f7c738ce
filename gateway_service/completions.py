"""Answers as OpenAI's chat completions, whole or in chunks. `usage.visual_tokens` and `vscan` are this project's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway_service.chat_request import OWN, ChatRequest
from gateway_service.token_texts import entries
from vscan_client import Answer, FinishReason, ImageReport, PruneReport, Started, TextDelta, Token, Usage
from vscan_client.jsonable import jsonable

Json = dict[str, Any]


@dataclass(slots=True)
class Completion:
    """One answer in the making: what all of its chunks say alike, and which samples have ended.

    Args:
        request: what was asked.
        fingerprint: of the pair of checkpoints.
    """

    request: ChatRequest
    fingerprint: bytes
    created: int = field(default_factory=lambda: int(time.time()))
    _request_id: str = ""
    _prompt_tokens: int = 0
    _completion_tokens: int = 0  # so far
    _spoke: set[int] = field(default_factory=set)
    _ended: set[int] = field(default_factory=set)

    def whole(self, answer: Answer) -> Json:
        """All of it at once."""
        self._request_id = answer.request_id
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": sample.text, "refusal": None},
                "logprobs": self._logprobs(sample.tokens),
                "finish_reason": _reason(sample.finish_reason),
            }
            for index, sample in enumerate(answer.samples)
        ]
        return self._object("chat.completion", choices) | {"usage": usage(answer), OWN: report(answer)}

    def begin(self, started: Started) -> None:
        """The decoder has accepted the request. No chunk says so: to load generators the first chunk is the first token."""
        self._request_id, self._prompt_tokens = started.request_id, started.prompt_tokens

    def more(self, delta: TextDelta) -> Iterator[Json]:
        """The next piece of a sample; before its first one, who speaks."""
        self._completion_tokens += len(delta.tokens)
        yield from self._speaker(delta.sample)
        logprobs = self._logprobs(delta.tokens) if delta.tokens else None
        if delta.text or logprobs:
            yield self._chunk(delta.sample, {"content": delta.text}, logprobs=logprobs)
        if delta.reason is not None:
            yield self._end(delta.sample, delta.reason)

    def last(self, answer: Answer) -> Iterator[Json]:
        """The ends that no piece has told, which decoders of earlier releases leave to the answer; the usage, if asked for."""
        for index, sample in enumerate(answer.samples):
            yield from self._speaker(index)
            if index not in self._ended:
                yield self._end(index, sample.finish_reason)
        if self.request.include_usage:
            yield self._object("chat.completion.chunk", []) | {"usage": usage(answer), OWN: report(answer)}

    def _speaker(self, sample: int) -> Iterator[Json]:
        if sample not in self._spoke:
            self._spoke.add(sample)
            yield self._chunk(sample, {"role": "assistant", "content": ""})

    def _end(self, sample: int, reason: FinishReason) -> Json:
        self._ended.add(sample)
        return self._chunk(sample, {}, reason=_reason(reason))

    def _chunk(self, sample: int, delta: Json, *, logprobs: Json | None = None, reason: str | None = None) -> Json:
        choice = {"index": sample, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        told = self._object("chat.completion.chunk", [choice])
        return told | {"usage": self._usage_so_far()} if self.request.include_usage else told

    def _usage_so_far(self) -> Json | None:
        if not self.request.continuous_usage:
            return None
        return _counts(self._prompt_tokens, self._completion_tokens)

    def _object(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self._request_id}",
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": fingerprint_of(self.fingerprint),
            "choices": choices,
        }

    def _logprobs(self, tokens: tuple[Token, ...]) -> Json | None:
        if not self.request.logprobs:
            return None
        return {"content": entries(tokens, self.request.top_logprobs), "refusal": None}


def fingerprint_of(pair: bytes) -> str:
    """What OpenAI's clients compare to see whether the deployment changed."""
    return f"fp_{pair.hex()[:16]}"


def usage(answer: Answer) -> Json:
    """Tokens, and those of images and videos: before any reduction, after the encoder, after the last pruning layer, and on
    average over the language model's layers. Those of the prompt that were reused, where the decoder says it.
    """
    told = answer.usage
    visual = {
        "before": told.visual_tokens_unreduced,
        "after_encoder": told.visual_tokens,
        "after_pruning": _after_pruning(told, answer.pruning),
        "average": told.visual_tokens_average,
    }
    counts = _counts(told.prompt_tokens, told.completion_tokens)
    reused = (
        {} if told.reused_prompt_tokens is None else {"prompt_tokens_details": {"cached_tokens": told.reused_prompt_tokens}}
    )
    return counts | reused | {"visual_tokens": visual}


def report(answer: Answer) -> Json:
    """What became of each image and video, what pruning did, how long it took: the rest of what the SDK tells."""
    return {
        "request_id": answer.request_id,
        "seed": answer.seed,
        "trace_id": answer.client.trace_id,
        "images": [_image(image) for image in answer.images],
        "pruning": [_pruning(stage) for stage in answer.pruning],
        "timings": jsonable(answer.timings),
        "reused_prompt_tokens_average": answer.usage.reused_prompt_tokens_average,
    }


def _counts(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _image(image: ImageReport) -> Json:
    return {name: value for name, value in jsonable(image).items() if value is not None}


def _pruning(stage: PruneReport) -> Json:
    told: Json = jsonable(stage)
    return told if stage.survivors else {name: value for name, value in told.items() if name != "survivors"}


def _after_pruning(usage: Usage, pruning: tuple[PruneReport, ...]) -> int:
    return pruning[-1].tokens_after if pruning else usage.visual_tokens


def _reason(reason: FinishReason) -> str:
    return "length" if reason is FinishReason.LENGTH else "stop"
