"""Settings of what only an encoder does: who encodes, and how entries are written."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from vscan.cache.body import BodyCodec


class CacheWriteSettings(BaseModel):
    """A mixin for the encoder's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lease_seconds: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="How long replicas wait for one that has died while it encoded an image that they want too, in seconds; "
        "one that lives renews its lease. The same for all replicas. 0: they do not wait for each other.",
    )
    cache_compression: Literal["none", "zstd"] = Field(
        default="none", description="Whether entries in Redis are compressed. Readers need no setting."
    )
    cache_compression_level: int = Field(default=3, ge=1, le=19, description="Level of zstd.")
    cache_tokens: Literal["full", "float8"] = Field(
        default="full",
        description="`float8`: tokens are rounded to float8 (e4m3, a scale a token), in entries and in replies alike; such an "
        "encoder has another fingerprint. Readers need no setting.",
    )

    @property
    def body_codec(self) -> BodyCodec:
        """How entries are written."""
        level = self.cache_compression_level if self.cache_compression == "zstd" else None
        return BodyCodec(zstd_level=level, float8=self.cache_tokens == "float8")
