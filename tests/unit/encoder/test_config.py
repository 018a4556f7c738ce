"""The encoder's settings."""

import pytest

from encoder_service.config import EncoderSettings
from vscan.config import load_settings
from vscan.errors import StartupError
from vscan.specs import DEFAULT_REDUCTION, FrameCount, FrameRate, Ratio, ReductionMethod, TargetAverage, TokensPerTile


def test_the_default_reduction_is_the_papers() -> None:
    assert EncoderSettings().reduction == DEFAULT_REDUCTION
    assert EncoderSettings().bind == "127.0.0.1:7071"


@pytest.mark.parametrize(
    ("setting", "budget"),
    [
        ({"reduction_tokens_per_tile": 12}, TokensPerTile(12)),
        ({"reduction_ratio": 0.5}, Ratio(0.5)),
        ({"reduction_target_average": 0.25}, TargetAverage(0.25)),
    ],
)
def test_each_budget_can_be_the_default(setting: dict[str, float], budget: object) -> None:
    assert load_settings(EncoderSettings, setting).reduction.budget == budget


def test_the_other_fields_of_the_default_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_ENCODER_REDUCTION_METHOD", "global")
    monkeypatch.setenv("VSCAN_ENCODER_REDUCTION_MERGE", "false")
    chosen = load_settings(EncoderSettings).reduction
    assert (chosen.method, chosen.merge) == (ReductionMethod.GLOBAL, False)


def test_which_frames_unset_sampling_means_can_be_set() -> None:
    assert EncoderSettings().frame_sampling is None
    assert load_settings(EncoderSettings, {"video_frames": 4}).frame_sampling == FrameCount(4)
    assert load_settings(EncoderSettings, {"video_frames_per_second": 0.5}).frame_sampling == FrameRate(0.5)


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"reduction_tokens_per_tile": 12, "reduction_ratio": 0.5}, "exclude each other"),
        ({"max_image_bytes": 2**26}, "max_message_bytes must be larger than max_image_bytes"),
        ({"max_video_bytes": 2**26}, "max_message_bytes must be larger than max_video_bytes"),
        ({"video_frames": 4, "video_frames_per_second": 1}, "exclude each other"),
        ({"video_frames": 65}, "video_frames must be at most max_video_frames"),
        ({"max_video_seconds": float("inf")}, "max-video-seconds"),
        ({"reduction_ratio": float("nan")}, "reduction"),
        ({"reduction_method": "magic"}, "reduction"),
        ({"max_queue": 0}, "max"),
        ({"batch_wait_ms": float("inf")}, "batch"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: dict[str, object], text: str) -> None:
    with pytest.raises(StartupError, match=text):
        load_settings(EncoderSettings, setting)
