"""Encoders that share a cache and differ in a setting: where they would make other tokens, they keep them under another key."""

from collections.abc import Mapping
from typing import Any

import pytest

from encoder_service.config import EncoderSettings
from tests.support.encoder import running_encoder
from tests.support.qwen import QWEN
from tests.support.video_llava import shared_video_llava
from tests.support.videos import video
from vscan.model_settings import ModelSettings
from vscan.v1 import encoder_pb2 as pb
from vscan.v1 import visual_tokens_pb2 as tokens_pb

# Another value of each setting, one under which the video below is still encoded.
OTHERS: Mapping[str, Any] = {
    "model_alias": "another",
    "dtype": "bfloat16",
    "torch_threads": 2,
    "shallow_layer": None,  # the family's own, below
    "window": 2,
    "skip_padding": False,
    "reduction_method": "global",
    "reduction_tokens_per_tile": 1,
    "reduction_ratio": 0.9,
    "reduction_target_average": 0.6,
    "reduction_local_share": 0.0,
    "reduction_merge": False,
    "video_frames": 4,
    "video_frames_per_second": 1,
    "video_max_tokens": None,
    "max_image_bytes": 10_000,
    "max_image_pixels": 100_000,
    "min_image_side_pixels": 2,
    "max_aspect": 2,
    "max_video_bytes": 100_000,
    "max_video_seconds": 11,
    "max_video_frames": 8,
    "max_video_frame_pixels": 10_000,
    "max_video_decoded_pixels": 10_000_000,
    "max_lookup_digests": 1,
    "max_queue": 1,
    "max_queue_bytes": 1,
    "max_batch_tiles": 2,
    "batch_wait_ms": 3,
    "image_workers": 1,
    "video_workers": 2,
}
VIDEO = video(frames=20, rate=2)
SAMPLINGS = (None, tokens_pb.FrameSampling(frames_per_second=2))


async def outcomes(**settings: Any) -> list[tuple[bytes, tokens_pb.VisualTokens]]:
    """Key and answer, without the figures of the tokens, of a video of 20 frames so sampled."""
    async with running_encoder(**settings) as encoder:
        found = []
        for sampling in SAMPLINGS:
            asked = tokens_pb.Video(data=VIDEO, sampling=sampling)
            response = await encoder.stub.Encode(pb.EncodeRequest(video=asked), timeout=60)
            response.visual_tokens.tokens.ClearField("data")
            found.append((response.content_key, response.visual_tokens))
        return found


def test_every_setting_of_an_encoder_has_another_value_here() -> None:
    own = {*EncoderSettings.__annotations__, *ModelSettings.__annotations__}
    assert set(OTHERS) == own - {"model_config", "bind", "model", "device", "compile"}


@pytest.mark.parametrize("family", ["qwen", "video_llava"])
async def test_what_changes_the_tokens_of_a_video_changes_its_key(family: str) -> None:
    model, own = {
        "qwen": (QWEN, {"shallow_layer": 7, "video_max_tokens": 40}),
        "video_llava": (shared_video_llava()[0], {"shallow_layer": 1, "video_max_tokens": 400}),
    }[family]
    base = {"model": model, "shallow_layer": None, "window": None}
    usual, changed = await outcomes(**base), set()
    for name, value in {**OTHERS, **own}.items():
        for (key, tokens), (usual_key, usual_tokens) in zip(await outcomes(**{**base, name: value}), usual, strict=True):
            if tokens != usual_tokens:
                changed.add(name)
                assert key != usual_key, name
    assert changed > {"dtype", "max_video_frames", "reduction_ratio", "reduction_merge", "video_frames"}
