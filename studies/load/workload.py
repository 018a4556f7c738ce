"""What is asked, and when. The same options and seed give the same questions at the same times, whoever answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from heapq import nsmallest
from itertools import accumulate
from random import Random
from typing import Any, Protocol

from vscan.errors import InvalidArgument

# More would need more memory than a generator should take, and longer than anybody waits.
MOST_REQUESTS = 1_000_000
MOST_IMAGES = 1_000_000
# Words that the embedded model knows, one token each. The first words of a question count, so that no two are alike.
_WORDS = ("circle", "square", "triangle", "diamond", "cross", "star", "red", "green", "blue", "yellow", "purple", "orange")
_COUNTING_WORDS = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """One request.

    Attributes:
        number: its place in the run, from 0.
        due_s: when it is due, in seconds from the run's beginning; `None` in a closed loop: when a client is free.
        images: which images of the album, in the prompt's order.
        question: the text.
        answer_tokens: the answer has exactly so many; `None`: as many as the model likes.
        style: which budget of the mix.
    """

    number: int
    due_s: float | None
    images: tuple[int, ...]
    question: str
    answer_tokens: int | None
    style: int = 0


class Load(Protocol):
    """Requests, drawn or recorded."""

    def asks(self, part: int = 0) -> list[Ask]:
        """Those of one part (a round, a warm-up), in order of time."""

    def warming(self, part: int) -> list[Ask]:
        """A part that warms up: as `asks`, and caches then are as they are after any part."""

    def described(self) -> dict[str, Any]:
        """As JSON values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Requests drawn at random.

    Attributes:
        requests: how many.
        rate: requests a second of a Poisson process (open loop); `None`: a closed loop.
        images: how many images there are. The popularity of the one at rank r (from 1) is proportional to 1 / r ** zipf.
        zipf: 0 for all alike.
        images_per_question: different ones in each.
        fresh: no image comes twice, and no popularity.
        question_words: length of the questions that are made.
        questions: texts to draw from instead, all alike.
        answer_tokens: length of every answer; `None`: the model's.
        mix: weights of the styles.
        seed: any integer.
    """

    requests: int
    rate: float | None = None
    images: int = 8
    zipf: float = 1.0
    images_per_question: int = 1
    fresh: bool = False
    question_words: int = 8
    questions: tuple[str, ...] = ()
    answer_tokens: int | None = 16
    mix: tuple[float, ...] = (1.0,)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.requests <= MOST_REQUESTS:
            raise InvalidArgument("--requests", f"{self.requests}", limit=f"1 to {MOST_REQUESTS:,}")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise InvalidArgument("--rate", f"{self.rate:g}", limit="over 0")
        if not 0 <= self.images <= MOST_IMAGES:
            raise InvalidArgument("--images", f"{self.images}", limit=f"0 to {MOST_IMAGES:,}")
        if not 0 <= self.zipf <= 10:
            raise InvalidArgument("--zipf", f"{self.zipf:g}", limit="0 to 10")
        if not self.fresh and self.images_per_question > self.images:
            raise InvalidArgument(
                "--images-per-question", f"{self.images_per_question}", limit=f"the {self.images} images there are"
            )

    def asks(self, part: int = 0) -> list[Ask]:
        """The requests of one part (a round, a warm-up), in order of time. Parts differ, and share popularity.

        Of `fresh` images the first part has 0, 1, 2, …, the next one goes on.
        """
        # A stream of random numbers each: another rate leaves the questions as they are.
        times, pictures = (Random(f"{self.seed}/{part}/{what}") for what in ("times", "images"))
        styles = style_draws(self.mix, self.seed, part)
        texts = Random(f"{self.seed}/{part}/questions")
        due = poisson(self.rate, times) if self.rate is not None else None
        chosen = self._fresh(part) if self.fresh else popular(self.images, self.zipf, self.images_per_question, pictures)
        made = []
        for number in range(self.requests):
            text = texts.choice(self.questions) if self.questions else question(texts, self.question_words)
            made.append(Ask(number, next(due) if due else None, next(chosen), text, self.answer_tokens, next(styles)))
        return made

    def warming(self, part: int) -> list[Ask]:
        """Those of a part, then a question about each image that none of them is about: else rounds would find ever more of the
        less popular ones in caches. At most as many as a part has, the most popular first; of `fresh` images none.
        """
        asks = self.asks(part)
        if self.fresh or not self.images_per_question:
            return asks
        left = sorted(set(range(self.images)) - set(images_of(asks)))
        groups = [left[begin : begin + self.images_per_question] for begin in range(0, len(left), self.images_per_question)]
        last_s = asks[-1].due_s
        for number, images in enumerate(groups[: self.requests], 1):
            due_s = None if last_s is None or self.rate is None else last_s + number / self.rate
            asks.append(replace(asks[number - 1], number=len(asks), due_s=due_s, images=tuple(images)))
        return asks

    def described(self) -> dict[str, Any]:
        """See `Load`; of questions that were given, how many."""
        return {**asdict(self), "questions": len(self.questions)}

    def images_needed(self, parts: int) -> int:
        """How many images the album must have for so many parts."""
        return self.requests * self.images_per_question * parts if self.fresh else self.images

    def _fresh(self, part: int) -> Iterator[tuple[int, ...]]:
        first = part * self.requests * self.images_per_question
        while True:
            yield tuple(range(first, first + self.images_per_question))
            first += self.images_per_question


def style_draws(mix: Sequence[float], seed: int, part: int) -> Iterator[int]:
    """Styles at random, each in proportion to its weight."""
    draw = Random(f"{seed}/{part}/styles")
    while True:
        yield draw.choices(range(len(mix)), mix)[0]


def poisson(rate: float, draw: Random) -> Iterator[float]:
    """Times of a Poisson process, in seconds: gaps are exponential with mean 1 / rate. The first is due after one gap."""
    at_s = 0.0
    while True:
        at_s += draw.expovariate(rate)
        yield at_s


def popular(images: int, zipf: float, each: int, draw: Random) -> Iterator[tuple[int, ...]]:
    """`each` different images at a time out of so many, image i with a weight of 1 / (i + 1) ** zipf.

    Several are drawn one after the other without putting back, by the smallest of exponential times with the weights as rates
    (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
    """
    weights = [1 / rank**zipf for rank in range(1, images + 1)]
    summed = list(accumulate(weights))
    while True:
        if each == 1:
            yield (draw.choices(range(images), cum_weights=summed)[0],)
        else:
            comes = [draw.expovariate(1.0) / weight for weight in weights]
            yield tuple(nsmallest(each, range(images), key=comes.__getitem__))


def question(draw: Random, words: int) -> str:
    """A text of so many words, hardly ever the same twice where there are four or more."""
    first = min(words, _COUNTING_WORDS)
    return " ".join([*draw.choices(_WORDS, k=first), *["is"] * (words - first)])


def images_of(asks: Sequence[Ask]) -> list[int]:
    """Which images these are about, once each, in order."""
    return sorted({image for ask in asks for image in ask.images})
