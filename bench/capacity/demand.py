"""What is asked of a deployment, and what it may take: checked, with errors that name the option."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite

from bench.capacity.curve import NotMeasured, curve_at
from bench.capacity.profile import Profile

_ROUNDING = 1e-6
_SHARES = ("repeat_rate",)
_COUNTS = ("images", "answer_tokens", "question_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A load and a goal.

    Attributes:
        repeat_rate: of the images in requests, how many were asked about within the time to live.
        distinct_images: seen within the time to live; None: as many as are new in that time. No fewer.
        repeated_images: that repeated questions are about, all alike; None: all distinct ones.
        target_ms: for the 95th percentile of the time to the first token.
        utilisation: the largest that a replica may have.
        imbalance: load of the busiest decoder over the average, where there are several; as the SDK's `load_factor`.
        spare: replicas of each kind that may be away.
        file_bytes: of an image; None: as the profile has it for `pixels`.
        kv_bytes: of a decoder's KV cache; None: as the profile has it.
    """

    requests_per_second: float
    pixels: float
    images: int = 1
    repeat_rate: float
    distinct_images: float | None = None
    repeated_images: float | None = None
    answer_tokens: int
    question_tokens: int
    ttl_s: float
    target_ms: float
    utilisation: float = 0.75
    imbalance: float = 1.25
    spare: int = 1
    file_bytes: float | None = None
    kv_bytes: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                _check(field.name, value)
        new = self.new_images_per_second * self.ttl_s
        if self.distinct_images is not None and self.distinct_images < new * (1 - _ROUNDING):
            raise ValueError(f"--distinct-images: {new:g} are new within --ttl, {self.distinct_images:g} cannot be all")
        if self.distinct_images is None and not new:
            raise ValueError("--distinct-images: needed where no image is new (--repeat-rate 1)")

    @property
    def new_images_per_second(self) -> float:
        """Images that nobody asked about before."""
        return self.requests_per_second * self.images * (1 - self.repeat_rate)

    @property
    def images_within_ttl(self) -> float:
        """That Redis has to hold."""
        return self.distinct_images or max(1.0, self.new_images_per_second * self.ttl_s)

    @property
    def images_of_repeats(self) -> float:
        """That decoders have to remember if repeated questions are to be cheap."""
        return self.repeated_images or self.images_within_ttl

    @property
    def new_share(self) -> float:
        """Of the requests, how many have a new image."""
        return 1 - self.repeat_rate**self.images

    @property
    def new_images(self) -> float:
        """Of a request that has any, on average."""
        return self.images * (1 - self.repeat_rate) / self.new_share if self.new_share else 0.0

    def at(self, requests_per_second: float) -> Demand:
        """The same of another rate."""
        return replace(self, requests_per_second=requests_per_second)

    def bytes_of_file(self, profile: Profile) -> float:
        """Raises NotMeasured where nobody says."""
        if self.file_bytes is not None:
            return self.file_bytes
        return curve_at(profile.wire.file_bytes, self.pixels, "an image file's size (wire.file_bytes, or --file-bytes)")

    def fitted(self, profile: Profile) -> Profile:
        """The profile with what the demand says of it. Raises NotMeasured where neither knows the KV cache."""
        if self.kv_bytes is None:
            if profile.decoder.kv.cache_bytes is None:
                raise NotMeasured("a decoder's KV cache (decoder.kv.cache_bytes, or --kv-bytes)")
            return profile
        kv = profile.decoder.kv.model_copy(update={"cache_bytes": self.kv_bytes})
        return profile.model_copy(update={"decoder": profile.decoder.model_copy(update={"kv": kv})})


def _check(name: str, value: float) -> None:
    option = "--" + {"target_ms": "target-ttft-p95-ms", "ttl_s": "ttl", "pixels": "image", "images": "images-per-request"}.get(
        name, name.replace("_", "-")
    )
    if not isfinite(value):
        raise ValueError(f"{option}: a number is needed, not {value}")
    if name in _SHARES:
        if not 0 <= value <= 1:
            raise ValueError(f"{option}: 0 to 1, not {value:g}")
    elif name == "utilisation":
        if not 0 < value < 1:
            raise ValueError(f"{option}: between 0 and 1, not {value:g}")
    elif name == "imbalance":
        if value < 1:
            raise ValueError(f"{option}: at least 1, not {value:g}")
    elif name == "spare":
        if value < 0:
            raise ValueError(f"{option}: at least 0, not {value:g}")
    elif value <= 0 or (name in _COUNTS and value < 1):
        raise ValueError(f"{option}: over 0, not {value:g}")
