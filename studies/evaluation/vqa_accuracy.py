"""VQA accuracy and the normalisation of answers that goes with it, as VQAv2, TextVQA and VizWiz use them.

Sources: the VQA challenge's `PythonEvaluationTools/vqaEvaluation/vqaEval.py`, and the answer processor of EvalAI as in M4C's
evaluator, which LLaVA's evaluation scripts use for TextVQA and before they hand answers in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
# In the order in which they are looked for; the full stop has a rule of its own.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")
# As they are written; each is also understood with one of its apostrophes left out. Not in the rule: lets, shes.
# One text: a list of a hundred quoted words is harder to read.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()  # noqa: SIM905
_CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED for at, letter in enumerate(word) if letter == "'"
} | {"somebody'd": "somebodyd"}  # the rule has this one the other way round


def normalised(answer: str) -> str:
    """An answer as VQA's script compares it: without punctuation and articles, numbers to ten in digits, apostrophes put back.

    `The two-storey house, I think` → `2 storey house i think`
    """
    return _words(_without_punctuation(plain(answer)))


def plain(answer: str) -> str:
    """An answer on one line, without blanks around it."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def evalai_answer(answer: str) -> str:
    """An answer as EvalAI's processor leaves it, and as LLaVA's scripts hand it in.

    Commas and question marks go first, and `'s` becomes a word of its own; then as `normalised`.
    """
    lowered = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalised(lowered)


def vqa_accuracy(answer: str, others: Sequence[str]) -> float:
    """The mean, over each choice of all but one of the `others`, of min(1, how many of these equal the answer / 3).

    With ten people, of whom m said the same: the m that are left out once leave m - 1, the 10 - m others leave m. So
    m = 3: (3 · 2/3 + 7 · 1) / 10 = 0.9.
    """
    same = [other == answer for other in others]
    matching = sum(same)
    return sum(min(1.0, (matching - left_out) / 3) for left_out in same) / len(others)


def _without_punctuation(text: str) -> str:
    """A mark with a blank beside it anywhere, or any mark where a number has a comma, is taken out; else it becomes a blank."""
    number = _COMMA_IN_NUMBER.search(text) is not None
    result = text
    for mark in _PUNCTUATION:
        alone = number or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if alone else " ")
    return _FULL_STOP.sub("", result)


def _words(text: str) -> str:
    digits = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in digits if word not in _ARTICLES)
