"""One encoder under its share of new images.

A decoder asks encoders in turn, so each has a queue of its own. While passes are shorter than what lies between two images, an
image has a pass for itself, and waits as in M/D/1. Beyond that images gather while a pass runs: a pass takes as many as come
during one, b = rate x pass(b), and an image waits for half a pass on average. Images of one request that reach one encoder
together count as one job: they have a pass together.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.capacity.curve import NotMeasured, curve_at, measured
from bench.capacity.profile import Profile
from bench.capacity.queueing import Wait, wait

_CLOSE = 1e-3


@dataclass(frozen=True, slots=True)
class EncoderLoad:
    """What one encoder does."""

    utilisation: float  # of its device, with the largest passes that were measured
    batch: float  # images in a pass, on average
    wait: Wait
    alone_ms: float  # of an image that waits for nobody


class EncoderModel:
    """Raises NotMeasured where a figure lacks."""

    def __init__(self, profile: Profile, pixels: float) -> None:
        costs, cache = profile.encoder, profile.cache
        if costs.pass_ms is None:
            raise NotMeasured("a device pass (encoder.pass_ms)")
        self._pass_ms, self._tiles = costs.pass_ms, profile.tiles
        self._most = int(min(costs.max_batch_tiles, self._pass_ms.largest)) // profile.tiles
        if self._most < 1:
            raise NotMeasured(f"a device pass of {profile.tiles} tiles (encoder.pass_ms)")
        self._beside_ms = curve_at(costs.preprocess_ms, pixels, "decoding an image (encoder.preprocess_ms)")
        self._beside_ms += measured(costs.request_ms, "an encoder's processor time for an image (encoder.request_ms)")
        self._on_core = self._beside_ms + measured(costs.end_ms, "and after it (encoder.end_ms)") if costs.on_core else 0.0
        redis_ms = 2 * measured(cache.get_ms, "a read of Redis (cache.get_ms)")
        self._redis_ms = redis_ms + measured(cache.put_ms, "a write of Redis (cache.put_ms)")

    def least_ms(self) -> float:
        """Of its device for an image, in the best pass."""
        return min(self._pass(count) / count for count in range(1, self._most + 1)) + self._on_core

    def load(self, images_per_second: float, together: int = 1) -> EncoderLoad:
        """`together`: images of one request. Raises ValueError where the queue only grows."""
        busy = images_per_second * self.least_ms() / 1e3
        if busy >= 1:
            raise ValueError("encoders are overloaded")
        passes_ms = self._passes(together)
        alone_ms = passes_ms + together * self._beside_ms + self._redis_ms
        taken_ms = passes_ms + together * self._on_core
        jobs = images_per_second / together
        if jobs * taken_ms / 1e3 < 1:
            return EncoderLoad(busy, float(min(together, self._most)), wait(1, jobs, taken_ms, services_cv2=0.0), alone_ms)
        batch = self._gathered(images_per_second)
        gathered_ms = self._pass(batch) + batch * self._on_core
        longer_ms = alone_ms + max(0.0, gathered_ms - taken_ms)
        return EncoderLoad(busy, batch, Wait(1.0, gathered_ms / 2), longer_ms)

    def _gathered(self, images_per_second: float) -> float:
        """The fixed point of b = rate x pass(b). Raises ValueError where it is more than a pass may have."""
        batch = 1.0
        while True:
            if batch > self._most:
                raise ValueError("encoders are overloaded")
            more = images_per_second * (self._pass(batch) + batch * self._on_core) / 1e3
            if more - batch < _CLOSE:
                return batch
            batch = max(more, batch + _CLOSE)

    def _passes(self, images: int) -> float:
        """Of so many that come at once: full passes, and one of the rest."""
        full, rest = divmod(images, self._most)
        return full * self._pass(self._most) + (self._pass(rest) if rest else 0.0)

    def _pass(self, images: float) -> float:
        return self._pass_ms.at(images * self._tiles)
