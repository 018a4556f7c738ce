"""Values as JSON."""

import json

from vscan.specs import (
    FrameCount,
    FrameRate,
    KeepRatio,
    KeepTokens,
    PruneSpec,
    Rater,
    Ratio,
    ReductionSpec,
    TargetAverage,
    TokensPerTile,
    TotalTokens,
)
from vscan_client import ImageReport, Place, SampledFrames
from vscan_client.jsonable import jsonable


def test_a_budget_is_named_by_its_meaning() -> None:
    assert jsonable([TokensPerTile(96), Ratio(0.5), TargetAverage(0.25), TotalTokens(256)]) == [
        {"tokens_per_tile": 96},
        {"ratio": 0.5},
        {"target_average": 0.25},
        {"total_tokens": 256},
    ]
    assert jsonable([FrameCount(8), FrameRate(0.5)]) == [{"frames": 8}, {"frames_per_second": 0.5}]
    prune = PruneSpec(rater=Rater.LAST_TOKEN, budgets=(KeepTokens(32), KeepRatio(0.5)))
    assert jsonable(prune)["budgets"] == [{"tokens": 32}, {"ratio": 0.5}]
    assert jsonable(ReductionSpec(budget=TokensPerTile(1)))["budget"] == {"tokens_per_tile": 1}


def test_bytes_are_hexadecimal_and_enums_their_value() -> None:
    report = jsonable(ImageReport(b"\x01\xff", 144, 24, Place.REDIS, frames=SampledFrames((0.0, 0.5), 1.0, 0.5)))
    assert json.loads(json.dumps(report)) == {
        "sha256": "01ff",
        "tokens_before": 144,
        "tokens_after": 24,
        "place": "redis",
        "kept": None,
        "frames": {"seconds": [0.0, 0.5], "duration_seconds": 1.0, "interval_seconds": 0.5},
    }
