"""Questions with lettered options: how they are asked, and how MMBench's own tool finds the letter in an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase

NONE_FOUND = "Z"
# VLMEvalKit takes these sentences as a refusal, which is none of the options.
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def lettered(options: Sequence[str]) -> str:
    """Options as LLaVA's scripts list them, a line each: `A. cat`."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(ascii_uppercase, options, strict=False))


def chosen_letter(answer: str, options: Mapping[str, str]) -> str | None:
    """The option that an answer names, by the exact-match policy of VLMEvalKit (`vlmeval/utils/matching_util.py`).

    If just one of the letters stands alone among the words, that one. Else, if just one option's text is found in the answer,
    whatever the case, that one. `Z` for a refusal or a lone Z; `None` where the rule finds nothing: there the tool would ask a
    language model, which is not approximated.
    """
    if any(refusal in answer for refusal in _REFUSALS):
        return NONE_FOUND
    words = answer.translate(_PUNCTUATION).split()
    letters = [letter for letter in options if letter in words]
    if len(letters) == 1:
        return letters[0]
    if not letters and NONE_FOUND in words:
        return NONE_FOUND
    lowered = answer.lower()
    named = [letter for letter, option in options.items() if option.lower() in lowered]
    return named[0] if len(named) == 1 else None
