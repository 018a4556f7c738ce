"""Answers as OpenAI's chat completions, whole or in chunks. `usage.visual_tokens` and `vscan` are this project's own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gateway_service.chat_request import OWN, ChatRequest
from gateway_service.token_texts import TokenTexts
from vscan_client import Answer, FinishReason, ImageReport, PruneReport, Started, TextDelta, Token, Usage
from vscan_client.jsonable import jsonable

Json = dict[str, Any]


@dataclass(slots=True)
class Completion:
    """One answer in the making: what all of its chunks say alike, and which samples have ended.

    Args:
        request: what was asked.
        fingerprint: of the pair of checkpoints.
        texts: names tokens.
    """

    request: ChatRequest
    fingerprint: bytes
    texts: TokenTexts
    created: int = field(default_factory=lambda: int(time.time()))
    _request_id: str = ""
    _begun: set[int] = field(default_factory=set)
    _ended: set[int] = field(default_factory=set)

    def whole(self, answer: Answer) -> Json:
        """All of it at once."""
        self._request_id = answer.request_id
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": sample.text, "refusal": None},
                "logprobs": self._logprobs(index, sample.tokens),
                "finish_reason": _reason(sample.finish_reason),
            }
            for index, sample in enumerate(answer.samples)
        ]
        return self._object("chat.completion", choices) | {"usage": usage(answer), OWN: report(answer)}

    def first(self, started: Started) -> Iterator[Json]:
        """Who speaks, for each sample."""
        self._request_id = started.request_id
        for index in range(self.request.samples):
            yield self._chunk(index, {"role": "assistant", "content": ""})

    def more(self, delta: TextDelta) -> Iterator[Json]:
        """The next piece of a sample."""
        logprobs = self._logprobs(delta.sample, delta.tokens) if delta.tokens else None
        if delta.text or logprobs:
            yield self._chunk(delta.sample, {"content": delta.text}, logprobs=logprobs)
        if delta.reason is not None:
            yield self._end(delta.sample, delta.reason)

    def last(self, answer: Answer) -> Iterator[Json]:
        """The ends that no piece has told, which decoders of earlier releases leave to the answer; the usage, if asked for."""
        for index, sample in enumerate(answer.samples):
            if index not in self._ended:
                yield self._end(index, sample.finish_reason)
        if self.request.include_usage:
            yield self._object("chat.completion.chunk", []) | {"usage": usage(answer), OWN: report(answer)}

    def _end(self, sample: int, reason: FinishReason) -> Json:
        self._ended.add(sample)
        return self._chunk(sample, {}, reason=_reason(reason))

    def _chunk(self, sample: int, delta: Json, *, logprobs: Json | None = None, reason: str | None = None) -> Json:
        choice = {"index": sample, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        told = self._object("chat.completion.chunk", [choice])
        return told | {"usage": None} if self.request.include_usage else told

    def _object(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": f"chatcmpl-{self._request_id}",
            "object": kind,
            "created": self.created,
            "model": self.request.model,
            "system_fingerprint": fingerprint_of(self.fingerprint),
            "choices": choices,
        }

    def _logprobs(self, sample: int, tokens: tuple[Token, ...]) -> Json | None:
        if not self.request.logprobs:
            return None
        begins = sample not in self._begun
        self._begun.add(sample)
        return {"content": self.texts.entries(tokens, self.request.top_logprobs, begins=begins), "refusal": None}


def fingerprint_of(pair: bytes) -> str:
    """What OpenAI's clients compare to see whether the deployment changed."""
    return f"fp_{pair.hex()[:16]}"


def usage(answer: Answer) -> Json:
    """Tokens, and those of images and videos: before any reduction, after the encoder, after the last pruning layer, and on
    average over the language model's layers.
    """
    told = answer.usage
    return {
        "prompt_tokens": told.prompt_tokens,
        "completion_tokens": told.completion_tokens,
        "total_tokens": told.prompt_tokens + told.completion_tokens,
        "visual_tokens": {
            "before": told.visual_tokens_unreduced,
            "after_encoder": told.visual_tokens,
            "after_pruning": _after_pruning(told, answer.pruning),
            "average": told.visual_tokens_average,
        },
    }


def report(answer: Answer) -> Json:
    """What became of each image and video, what pruning did, how long it took: the rest of what the SDK tells."""
    return {
        "request_id": answer.request_id,
        "seed": answer.seed,
        "trace_id": answer.client.trace_id,
        "images": [_image(image) for image in answer.images],
        "pruning": [_pruning(stage) for stage in answer.pruning],
        "timings": jsonable(answer.timings),
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
