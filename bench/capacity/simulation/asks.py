"""What clients ask, and when: drawn at random, or a trace that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from random import Random

from vscan_client._affinity import affinity_key
from vscan_client.content import Image

# More would take longer than anybody waits, or more memory than there is.
MOST_ASKS = 1_000_000


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: when, about which images, of which length."""

    at_s: float
    images: tuple[int, ...]
    question_rows: int
    answer_tokens: int
    client: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Poisson arrivals.

    Attributes:
        repeat_rate: how many images were asked about before; those that are are drawn by `zipf`. The others are new.
        known: images that everybody had asked about before the first question.
        zipf: the popularity of an image is 1 / rank ** zipf; 0 for all alike.
        geometric: answers have a geometric length with that mean, instead of all the same.
    """

    per_second: float
    count: int
    repeat_rate: float = 0.0
    known: int = 0
    zipf: float = 0.0
    images: int = 1
    question_rows: int
    answer_tokens: int
    geometric: bool = False
    clients: int = 1

    def asks(self, seed: int) -> Iterator[Ask]:
        """The questions, in order of time; the same for the same seed."""
        if self.count > MOST_ASKS:
            raise ValueError(f"at most {MOST_ASKS} requests are simulated, not {self.count}")
        draw, at_s, drawn = Random(seed), 0.0, self.known
        ranks = list(accumulate(1 / rank**self.zipf for rank in range(1, self.known + 1)))
        for _ in range(self.count):
            at_s += draw.expovariate(self.per_second)
            chosen = []
            for _ in range(self.images):
                if ranks and draw.random() < self.repeat_rate:
                    chosen.append(draw.choices(range(self.known), cum_weights=ranks)[0])
                else:
                    chosen.append(drawn)
                    drawn += 1
            yield Ask(at_s, tuple(chosen), self.question_rows, self._tokens(draw), draw.randrange(self.clients))

    def _tokens(self, draw: Random) -> int:
        if not self.geometric or self.answer_tokens == 1:
            return self.answer_tokens
        return min(8 * self.answer_tokens, 1 + int(draw.expovariate(1 / (self.answer_tokens - 0.5))))


def key_of(images: tuple[int, ...], digests: Sequence[bytes] = ()) -> str | None:
    """The affinity key that the SDK gives to a request about these; `digests` are those of the first images, else made up."""
    if not images:
        return None
    first = images[0]
    digest = digests[first] if first < len(digests) else sha256(b"image %d" % first).digest()
    return affinity_key([Image(digest)])
