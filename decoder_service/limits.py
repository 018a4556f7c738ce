"""What the decoder refuses beyond, and what it does where a request says nothing about sampling. No torch."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TypeVar

from decoder_service.request import Sampling
from vscan.errors import InvalidArgument
from vscan.specs import JsonSchema, Regex, SamplingSpec

T = TypeVar("T")

MAX_TEMPERATURE = 2.0
MIN_REPETITION_PENALTY = 0.01  # logits are divided by it: by next to nothing they would be infinite
MAX_REPETITION_PENALTY = 2.0
MAX_PENALTY = 2.0
MAX_PRIORITY = 100
_DRAWN_SEED_BITS = 53  # whole in every language's numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of one deployment; `DecoderLimits` has the meanings."""

    max_message_bytes: int
    max_images: int
    max_context_tokens: int
    max_new_tokens: int
    max_messages: int
    max_parts: int
    max_text_chars: int
    max_stop_strings: int
    max_stop_chars: int
    max_logprobs: int
    max_queue: int
    max_positions: int
    max_videos: int
    max_stop_token_ids: int
    max_constraint_chars: int
    max_samples: int

    def check_sampling(self, spec: SamplingSpec) -> None:
        """Raises InvalidArgument naming the field and the limit."""
        _check_whole("sampling.max_new_tokens", spec.max_new_tokens, 1, self.max_new_tokens)
        _check_number("sampling.temperature", spec.temperature, 0, MAX_TEMPERATURE)
        _check_number("sampling.top_p", spec.top_p, 0, 1, over=True)
        _check_number("sampling.min_p", spec.min_p, 0, 1)
        penalty = spec.repetition_penalty
        _check_number("sampling.repetition_penalty", penalty, MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY)
        _check_number("sampling.presence_penalty", spec.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
        _check_number("sampling.frequency_penalty", spec.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
        _check_whole("sampling.top_k", spec.top_k, 0, 2**32 - 1)
        _check_whole("sampling.seed", spec.seed, 0, 2**64 - 1)
        _check_whole("sampling.logprobs", spec.logprobs, 0, self.max_logprobs)
        _check_whole("sampling.n", spec.n, 1, self.max_samples)
        check_count("sampling.stop", len(spec.stop), 0, self.max_stop_strings, "stop strings")
        for index, stop in enumerate(spec.stop):
            check_count(f"sampling.stop[{index}]", len(stop), 1, self.max_stop_chars, "characters")
        check_count("sampling.stop_token_ids", len(spec.stop_token_ids), 0, self.max_stop_token_ids, "stop tokens")
        match spec.constraint:
            case JsonSchema(text):
                check_count("sampling.json_schema", len(text), 1, self.max_constraint_chars, "characters")
            case Regex(pattern):
                check_count("sampling.regex", len(pattern), 1, self.max_constraint_chars, "characters")

    def check_prompt(self, rows: int, spec: SamplingSpec, *, field: str, positions: int | None = None) -> None:
        """Raises InvalidArgument if a prompt leaves no room for an answer, or for the one that was asked for.

        Args:
            rows: of the prompt.
            field: where the request has the prompt.
            positions: that the prompt takes; None for as many as it has rows.
        """
        _check_room(rows, spec, self.max_context_tokens, field, "tokens")
        if positions is not None:
            _check_room(positions, spec, self.max_positions, field, "positions")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingDefaults:
    """What unset fields of a request mean."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    logprobs: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    n: int = 1

    def fill(self, spec: SamplingSpec, *, rows: int, positions: int, limits: Limits) -> Sampling:
        """Every field decided, for a prompt of so many rows and positions that passed `Limits.check_prompt`.

        An unset length ends where the context or the positions do; an unset seed is drawn.
        """
        room = min(limits.max_context_tokens - rows, limits.max_positions - positions)
        return Sampling(
            max_new_tokens=_first(spec.max_new_tokens, min(self.max_new_tokens, room)),
            temperature=_first(spec.temperature, self.temperature),
            top_p=_first(spec.top_p, self.top_p),
            top_k=_first(spec.top_k, self.top_k),
            seed=_first(spec.seed, secrets.randbits(_DRAWN_SEED_BITS)),
            stop=spec.stop,
            ignore_eos=spec.ignore_eos,
            logprobs=_first(spec.logprobs, self.logprobs),
            min_p=_first(spec.min_p, self.min_p),
            repetition_penalty=_first(spec.repetition_penalty, self.repetition_penalty),
            presence_penalty=_first(spec.presence_penalty, self.presence_penalty),
            frequency_penalty=_first(spec.frequency_penalty, self.frequency_penalty),
            stop_token_ids=spec.stop_token_ids,
            n=_first(spec.n, self.n),
        )


def check_priority(priority: int) -> None:
    """Raises InvalidArgument for one out of range."""
    _check_whole("priority", priority, -MAX_PRIORITY, MAX_PRIORITY)


def _first(asked: T | None, default: T) -> T:
    return default if asked is None else asked


def check_count(field: str, count: int, least: int, most: int, what: str) -> None:
    """Raises InvalidArgument unless least <= count <= most: `messages: 100 messages, limit 1 to 64`."""
    if not least <= count <= most:
        raise InvalidArgument(field, f"{count:,} {what}", limit=f"{least} to {most:,}" if least else f"{most:,}")


def _check_room(taken: int, spec: SamplingSpec, most: int, field: str, unit: str) -> None:
    limit = f"{most} {unit} of prompt and answer together"
    if taken >= most:
        raise InvalidArgument(field, f"{taken} {unit}", limit=limit)
    if spec.max_new_tokens is not None and taken + spec.max_new_tokens > most:
        raise InvalidArgument("sampling.max_new_tokens", f"{spec.max_new_tokens} after {taken} of prompt", limit=limit)


def _check_whole(field: str, value: int | None, least: int, most: int) -> None:
    if value is not None and not least <= value <= most:
        raise InvalidArgument(field, f"{value}", limit=f"{least} to {most}")


def _check_number(field: str, value: float | None, least: float, most: float, *, over: bool = False) -> None:
    """`over`: the least is left out. NaN is outside of everything."""
    if value is not None and not (least < value <= most or (value == least and not over)):
        raise InvalidArgument(field, f"{value:g}", limit=f"{'over ' if over else ''}{least:g} to {most:g}")
