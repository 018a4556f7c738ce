"""The loads that services and simulation are compared under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.capacity.curve import curve_at
from bench.capacity.measuring.decoders import WORDS
from bench.capacity.measuring.questions import SIDE_PIXELS
from bench.capacity.profile import Profile
from bench.capacity.simulation.asks import Ask, Stream

_TOGETHER = 2  # answers in a step, for the estimate of a load


@dataclass(frozen=True, slots=True)
class Scenario:
    """A load. `utilisation` is that of the busier core, by a rough count from the profile; it sets the rate, nothing else."""

    name: str
    repeat_rate: float
    known: int
    answer_tokens: int
    utilisation: float
    replicas: int = 1  # of each kind
    zipf: float = 0.8

    def rate(self, profile: Profile) -> float:
        """Requests a second."""
        return self.utilisation / max(_core_seconds(profile, 1 - self.repeat_rate, self.answer_tokens))

    def asks(self, profile: Profile, seconds: float, seed: int) -> Sequence[Ask]:
        """The questions of so many seconds; the same for services and simulation."""
        rate = self.rate(profile)
        stream = Stream(
            per_second=rate,
            count=max(10, round(rate * seconds)),
            repeat_rate=self.repeat_rate,
            known=self.known,
            zipf=self.zipf,
            question_rows=WORDS,
            answer_tokens=self.answer_tokens,
        )
        return list(stream.asks(seed))


SCENARIOS = (
    Scenario("new images", repeat_rate=0.0, known=0, answer_tokens=8, utilisation=0.5),
    Scenario("known images", repeat_rate=1.0, known=12, answer_tokens=8, utilisation=0.5),
    Scenario("mixed", repeat_rate=0.7, known=40, answer_tokens=8, utilisation=0.5),
    Scenario("long answers", repeat_rate=0.7, known=40, answer_tokens=48, utilisation=0.5),
    Scenario("near saturation", repeat_rate=0.7, known=40, answer_tokens=8, utilisation=0.75),
    Scenario("two of each", repeat_rate=0.7, known=40, answer_tokens=8, utilisation=0.6, replicas=2),
)


def _core_seconds(profile: Profile, new: float, tokens: int) -> tuple[float, float]:
    """Processor seconds of a request on the decoders' core and on the other one."""
    decoder, encoder, client = profile.decoder, profile.encoder, profile.client
    rows = profile.prompt_rows(WORDS, 1)
    prompt = new * curve_at(decoder.cold_ms, rows, "cold_ms") + (1 - new) * curve_at(decoder.hot_ms, rows, "hot_ms")
    answer = (tokens - 1) * curve_at(decoder.step_ms, _TOGETHER, "step_ms") / _TOGETHER
    first = prompt + answer + (decoder.request_ms or 0) + (decoder.end_ms or 0) + new * (decoder.encoded_ms or 0)
    encoding = curve_at(encoder.pass_ms, profile.tiles, "pass_ms")
    encoding += curve_at(encoder.preprocess_ms, SIDE_PIXELS**2, "preprocess_ms")
    encoding += (encoder.request_ms or 0) + (encoder.end_ms or 0)
    asking = (client.request_ms or 0) + (client.end_ms or 0) + (tokens - 1) * (client.token_ms or 0)
    return first / 1e3, (asking + new * encoding) / 1e3
