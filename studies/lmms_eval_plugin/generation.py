"""How an answer's tokens are chosen: a task's `generation_kwargs` as the SDK's values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vscan.errors import InvalidArgument
from vscan.specs import SamplingSpec

_LENGTHS = ("max_new_tokens", "max_gen_toks", "max_tokens")
_TAKEN = (*_LENGTHS, "until", "do_sample", "temperature", "top_p", "top_k", "repetition_penalty", "seed", "num_beams", "n")


def sampling_of(given: Mapping[str, Any], *, seed: int | None = None) -> SamplingSpec:
    """What a task asks; what it does not say is as the deployment does it.

    `do_sample` false is greedy whatever the temperature; true without a temperature is 1; left out, the temperature decides,
    and without one it is greedy. `top_p` and `top_k` count only where tokens are drawn. `until` are the stop strings, which
    the answer does not hold. `seed` is used where the task has none.

    Raises:
        InvalidArgument: a value out of range, or a search by beams, which the service has not.
    """
    for name in ("num_beams", "n"):
        if given.get(name) not in (None, 1):
            raise InvalidArgument(f"generation_kwargs.{name}", f"{given[name]}", limit="1")
    temperature = _temperature(given)
    drawn = temperature > 0
    return SamplingSpec(
        max_new_tokens=next((int(given[name]) for name in _LENGTHS if given.get(name) is not None), None),
        temperature=temperature,
        top_p=_number(given, "top_p") if drawn else None,
        top_k=int(given["top_k"]) if drawn and given.get("top_k") else None,
        seed=given.get("seed", seed) if drawn else None,
        repetition_penalty=_number(given, "repetition_penalty"),
        stop=_stop(given.get("until")),
    )


def unknown_names(given: Mapping[str, Any]) -> list[str]:
    """What a task asks that means nothing here, such as how another model prepares its images."""
    return sorted(name for name, value in given.items() if name not in _TAKEN and value is not None)


def _temperature(given: Mapping[str, Any]) -> float:
    if given.get("do_sample") is False:
        return 0.0
    asked = _number(given, "temperature")
    return asked if asked is not None else float(bool(given.get("do_sample")))


def _number(given: Mapping[str, Any], name: str) -> float | None:
    return None if given.get(name) is None else float(given[name])


def _stop(until: Any) -> tuple[str, ...]:
    texts = [until] if isinstance(until, str) else list(until or ())
    if not all(isinstance(text, str) for text in texts):
        raise InvalidArgument("generation_kwargs.until", f"{until!r}", limit="texts")
    return tuple(dict.fromkeys(text for text in texts if text))
