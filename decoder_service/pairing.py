"""Whether a decoder and an encoder fit each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from vscan.content_key import DIGEST_BYTES
from vscan.errors import InvalidArgument
from vscan.specs import FrameSampling, ReductionSpec
from vscan.tensors import DTYPE_NAMES, dtype_from_proto
from vscan.v1 import encoder_pb2
from vscan.visual_tokens import CODEC_VERSION
from vscan.wire import frame_sampling_from_proto, reduction_from_proto


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderDescription:
    """What an encoder says of itself."""

    model: str
    fingerprint: bytes  # 32
    pair_fingerprint: bytes  # 32
    hidden_size: int
    dtype: torch.dtype
    codec_version: int
    defaults: ReductionSpec  # every field set
    frame_sampling: FrameSampling | None  # of a video where a request does not say; None: it takes no videos
    speaks_for_tenants: bool = False  # whether this decoder may say to it for which tenant it asks

    @classmethod
    def from_proto(cls, message: encoder_pb2.DescribeEncoderResponse) -> EncoderDescription:
        """Raises InvalidArgument if a field cannot be understood."""
        if len(message.fingerprint) != DIGEST_BYTES:
            raise InvalidArgument("fingerprint", f"{len(message.fingerprint)} bytes", limit=f"{DIGEST_BYTES} bytes")
        defaults = reduction_from_proto(message.defaults.reduction, "defaults.reduction")
        if None in (defaults.method, defaults.budget, defaults.local_share, defaults.merge, defaults.seed):
            raise InvalidArgument("defaults.reduction", "not every field is set")
        return cls(
            model=message.model,
            fingerprint=message.fingerprint,
            pair_fingerprint=message.pair_fingerprint,
            hidden_size=message.hidden_size,
            dtype=dtype_from_proto(message.dtype),
            codec_version=message.codec_version,
            defaults=defaults,
            frame_sampling=frame_sampling_from_proto(message.defaults.frame_sampling, "defaults.frame_sampling"),
            speaks_for_tenants=message.speaks_for_tenants,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What this decoder needs of its encoder."""

    pair_fingerprint: bytes  # of its own checkpoint
    hidden_size: int
    dtypes: frozenset[torch.dtype] = frozenset(DTYPE_NAMES)  # that it can take
    has_tenants: Callable[[], bool] = lambda: False  # whether calls of others than the tenant `default` may come

    def problem(self, encoder: EncoderDescription) -> str | None:
        """Why the two do not fit, on one line; None if they do."""
        if encoder.codec_version != CODEC_VERSION:
            return f"the encoder writes visual tokens in codec version {encoder.codec_version}, here it is {CODEC_VERSION}"
        if encoder.hidden_size != self.hidden_size:
            return f"the encoder's tokens are {encoder.hidden_size} wide, the language model's {self.hidden_size}"
        if encoder.pair_fingerprint != self.pair_fingerprint:
            theirs, ours = encoder.pair_fingerprint.hex()[:12], self.pair_fingerprint.hex()[:12]
            return f"the encoder serves another checkpoint: {encoder.model!r} with config {theirs}, here it is {ours}"
        if encoder.dtype not in self.dtypes:
            return f"the encoder's tokens are {DTYPE_NAMES[encoder.dtype]}, which this decoder does not take"
        if self.has_tenants() and not encoder.speaks_for_tenants:
            return (
                "the encoder does not take calls on behalf of tenants from this decoder: "
                "its identities file must name this decoder, with on_behalf_of = true"
            )
        return None
