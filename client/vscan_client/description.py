"""What a deployment says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vscan.specs import FrameSampling, PruneSpec, ReductionSpec, SamplingSpec
from vscan_client.jsonable import jsonable


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderDescription:
    """The decoder: its model, its limits (by their names in the contract, units in the names), its defaults."""

    model: str
    family: str
    release: str
    pair_fingerprint: bytes
    encoder_fingerprint: bytes
    layers: int
    raw_prompts: bool
    prune_layers: tuple[int, ...]
    prune: PruneSpec
    sampling: SamplingSpec
    reduction: ReductionSpec
    limits: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDescription:
    """The encoder: its model, its limits (by their names in the contract, units in the names), its defaults.

    `frame_sampling` says which frames of a video are looked at; `None`: the model takes no videos.
    """

    model: str
    family: str
    release: str
    fingerprint: bytes
    pair_fingerprint: bytes
    hidden_size: int
    dtype: str
    tokens_per_tile: int
    codec_version: int
    shallow_layer: int
    deep_layer: int
    window: int
    skip_padding: bool
    reduction: ReductionSpec
    limits: dict[str, float]
    frame_sampling: FrameSampling | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The deployment; `encoder` only where the client knows its address."""

    decoder: DecoderDescription
    encoder: EncoderDescription | None = None

    def to_dict(self) -> dict[str, Any]:
        """The description as JSON values."""
        return dict(jsonable(self))
