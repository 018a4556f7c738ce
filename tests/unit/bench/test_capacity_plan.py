"""Plans: more load never needs less, known images need no encoders, what binds is named; profiles and options are checked."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bench.capacity.__main__ import main
from bench.capacity.checking import Case, cases, check, is_close, least_count
from bench.capacity.curve import Curve, NotMeasured
from bench.capacity.planning.network import on_the_wire
from bench.capacity.planning.plan import plan
from bench.capacity.profile import Profile
from bench.capacity.queueing import Wait, Way, erlang_c, quantile_ms, wait
from scripts.protos import ROOT
from tests.support.capacity import curve, demand, profile

KEPT = sorted((ROOT / "bench" / "results").glob("capacity-profile-*.json"))


def test_more_load_never_needs_fewer_replicas() -> None:
    plans = [plan(profile(), demand(requests_per_second=rate)) for rate in (1, 5, 25, 125, 625)]
    for less, more in pairwise(plans):
        assert less.decoders.needed <= more.decoders.needed
        assert less.encoders.needed <= more.encoders.needed
        assert less.redis_bytes < more.redis_bytes
        assert all(less.network_mbit[way] <= more.network_mbit[way] for way in less.network_mbit)
    assert plans[-1].decoders.needed > plans[0].decoders.needed


def test_images_that_are_known_need_no_encoder_but_the_one_that_is_there() -> None:
    needed = [
        plan(profile(), demand(requests_per_second=100, repeat_rate=rate, distinct_images=1e6)).encoders.needed
        for rate in (0, 0.5, 0.9, 1)
    ]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > needed[-1] == 1


def test_longer_answers_and_an_earlier_first_token_need_more_decoders() -> None:
    usual = plan(profile(), demand())
    assert plan(profile(), demand(answer_tokens=64)).decoders.needed > usual.decoders.needed
    hurried = plan(profile(), demand(target_ms=usual.first_token_p95_ms * 0.8))
    assert hurried.first_token_p95_ms <= usual.first_token_p95_ms * 0.8
    assert "first token" in (hurried.decoders.bound, hurried.encoders.bound)


def test_little_kv_memory_binds_and_says_so() -> None:
    little = plan(profile(), demand(answer_tokens=400, kv_bytes=4 << 20, target_ms=10_000))
    enough = plan(profile(), demand(answer_tokens=400, target_ms=10_000))
    assert little.decoders.bound == "KV memory" != enough.decoders.bound
    assert little.decoders.needed > enough.decoders.needed
    with pytest.raises(ValueError, match="--kv-bytes"):
        plan(profile(), demand(answer_tokens=400, kv_bytes=1 << 16))


def test_spare_replicas_are_added_to_those_that_are_needed() -> None:
    none, two = (plan(profile(), demand(spare=spare)) for spare in (0, 2))
    assert none.decoders.planned == none.decoders.needed == two.decoders.needed == two.decoders.planned - 2
    assert two.first_token_p95_ms == none.first_token_p95_ms


def test_redis_holds_what_is_new_within_the_time_to_live() -> None:
    made = plan(profile(), demand(requests_per_second=10, repeat_rate=0.5, ttl_s=100))
    assert made.redis_images == 500
    assert made.redis_bytes == 500 * 14_000
    assert made.redis_maxmemory == 1.25 * 500 * 14_000
    assert plan(profile(), demand(distinct_images=50_000)).redis_bytes == 50_000 * 14_000


def test_images_within_the_time_to_live_are_no_fewer_than_are_new_in_it_and_not_unknown() -> None:
    with pytest.raises(ValueError, match="--distinct-images: 43200 are new"):
        demand(distinct_images=7)
    with pytest.raises(ValueError, match="--distinct-images: needed"):
        demand(repeat_rate=1.0)
    assert plan(profile(), demand(repeat_rate=1.0, distinct_images=7)).encoders.needed == 1


def test_repeated_images_that_no_cache_holds_cost_decoders_and_time() -> None:
    """All of them in the KV cache, in the memory tier alone, in Redis alone."""
    kept, cold, redis = (plan(profile(), demand(requests_per_second=200, repeated_images=count)) for count in (100, 2e5, 43e5))
    assert (kept.prefix_share, kept.memory_share, cold.memory_share) == (1, 1, 1)
    assert cold.prefix_share < 0.5
    assert redis.memory_share < 0.5
    assert kept.decoders.needed < cold.decoders.needed <= redis.decoders.needed
    assert kept.network_mbit["Redis to decoder"] == 0 < redis.network_mbit["Redis to decoder"]


def test_several_images_of_a_request_take_longer_than_one() -> None:
    def wide(images: int) -> float:
        some = profile(decoder={"cold_ms": curve((1000, 24)), "hot_ms": curve((1000, 14))})
        made = plan(some, demand(requests_per_second=0.1, images=images, repeat_rate=0.0, target_ms=60_000, spare=0))
        assert (made.encoders.needed, made.decoders.needed) == (1, 1)
        return made.first_token_p95_ms

    # Eight have one pass of 240 ms where one has 40, and are decoded one after the other; sixteen take two passes.
    assert wide(8) - wide(1) >= 200 + 7 * 4
    assert wide(16) - wide(8) >= 240 + 8 * 4


def test_a_single_replica_is_not_said_to_be_bound_by_anything() -> None:
    made = plan(profile(), demand(requests_per_second=0.1))
    assert made.encoders.bound == made.decoders.bound == "at least one"


def test_batches_beyond_what_was_measured_are_named_as_what_binds() -> None:
    some = profile(decoder={"max_running": 32, "step_ms": curve((1, 10), (2, 10.1))})
    made = plan(some, demand(answer_tokens=400, target_ms=60_000))
    assert made.decoders.bound == "compute, in batches no larger than were measured"


def test_small_messages_are_mostly_what_is_around_them() -> None:
    assert on_the_wire(10) == 10 + 5 + 31 + 90
    assert 1.05 < on_the_wire(1e6) / 1e6 < 1.08
    made = plan(profile(), demand(requests_per_second=100, answer_tokens=16))
    assert made.network_mbit["decoder to client"] == pytest.approx(100 * 16 * 136 * 8 / 1e6)


def test_a_goal_that_nothing_reaches_is_refused() -> None:
    with pytest.raises(ValueError, match="--target-ttft-p95-ms: 20 is below"):
        plan(profile(), demand(target_ms=20.0))


def test_what_was_not_measured_is_named_and_may_be_assumed() -> None:
    lacking = profile(decoder={"end_ms": None})
    assert lacking.missing() == ["decoder.end_ms"]
    with pytest.raises(NotMeasured, match=r"decoder\.end_ms"):
        plan(lacking, demand())
    assert lacking.assuming(["decoder.end_ms=2"]) == profile()
    with pytest.raises(NotMeasured, match=r"hot_ms.*size of 94"):
        plan(profile(), demand(question_tokens=64))
    for wrong in ("decoder.cold_ms=1", "decoder.end_ms=x", "decoder.end_ms=-1"):
        with pytest.raises(ValueError, match="--assume"):
            lacking.assuming([wrong])


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    profile().save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile()


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("decoder", "end_ms", -1),
        ("encoder", "pass_ms", {"points": [[2, 1], [1, 1]]}),
        ("cache", "unknown", 1),
        ("wire", "hot_ms", "x"),
    ],
)
def test_a_wrong_profile_is_refused_with_its_field(tmp_path: Path, part: str, field: str, value: Any) -> None:
    values = json.loads(profile().model_dump_json())
    values[part][field] = value
    (tmp_path / "wrong.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"wrong.json: {part}.{field}"):
        Profile.load(tmp_path / "wrong.json")


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept_profiles_can_be_read(path: Path) -> None:
    assert Profile.load(path).tiles >= 1


def test_a_slower_machine_is_slower_in_every_duration_and_nothing_else() -> None:
    slower = profile().scaled(2.0)
    assert slower.decoder.step_ms == curve((1, 20), (8, 40))
    assert slower.decoder.end_ms == 4
    assert slower.wire.file_bytes == profile().wire.file_bytes
    assert slower.scaled(0.5) == profile()


def test_the_two_cores_of_a_machine_become_slower_by_themselves() -> None:
    whole, slower = profile().model_copy(update={"probe_ms": 10.0, "others_probe_ms": 30.0}), 2.0
    uneven = whole.scaled(1.0, slower)
    assert (uneven.decoder, uneven.probe_ms) == (whole.decoder, 10.0)
    assert uneven.others_probe_ms == 60.0
    assert uneven.encoder == whole.scaled(slower).encoder != whole.encoder
    assert uneven.client == whole.scaled(slower).client


def test_a_curve_is_straight_between_its_points_and_ends_with_them() -> None:
    some = curve((1, 10), (4, 16))
    assert [some.at(size) for size in (0, 1, 2, 4)] == [10, 10, 12, 16]
    with pytest.raises(NotMeasured, match="size of 5"):
        some.at(5)
    with pytest.raises(ValueError, match="ascend"):
        Curve(points=((2, 1), (1, 1)))


def test_waits_are_those_of_the_textbook() -> None:
    assert erlang_c(1, 0.5) == pytest.approx(0.5)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert wait(1, 10, 50, services_cv2=0).mean_ms == pytest.approx(25)  # M/D/1
    assert wait(1, 10, 50).mean_ms == pytest.approx(50)  # M/M/1
    with pytest.raises(ValueError, match="offered"):
        wait(1, 20, 50)


def test_quantiles_are_those_of_all_ways_together() -> None:
    exponential = Wait(1.0, 100.0)
    assert quantile_ms([Way(1.0, 50.0, [exponential])], 0.95) == pytest.approx(50 + 299.6, rel=0.02)
    nobody = Wait(0.0, 100.0)
    assert quantile_ms([Way(0.9, 10.0, [nobody]), Way(0.1, 500.0, [nobody])], 0.95) == pytest.approx(500, rel=0.01)
    assert quantile_ms([Way(0.96, 10.0, [nobody]), Way(0.04, 500.0, [nobody])], 0.95) == pytest.approx(10, abs=3)
    # One that hardly anybody waits for, however long it is, does not make the bins of all others wide.
    assert quantile_ms([Way(1.0, 50.0, [exponential, Wait(1e-6, 1e6)])], 0.95) == pytest.approx(50 + 299.6, rel=0.02)


def test_the_commands_name_the_option_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile().save(tmp_path / "profile.json")
    usual = [
        "plan",
        "--profile",
        str(tmp_path / "profile.json"),
        "--requests-per-second",
        "5",
        "--json",
        str(tmp_path / "plan.json"),
    ]
    assert main([*usual, "--question-tokens", "8"]) == 0
    assert json.loads((tmp_path / "plan.json").read_text())["plan"]["decoders"]["planned"] >= 2
    for option, value in {
        "--repeat-rate": "2",
        "--image": "big",
        "--utilisation": "1",
        "--spare": "-1",
        "--answer-tokens": "0",
        "--images-per-request": "0",
        "--distinct-images": "3",
    }.items():
        assert main([*usual, option, value]) == 2
        assert f"{option}: " in capsys.readouterr().err
    assert main([*usual, "--question-tokens", "8", "--json", str(tmp_path / "none" / "plan.json")]) == 2
    assert "none" in capsys.readouterr().err
    assert main(["check", "--profile", str(tmp_path / "profile.json"), "--only", "4 a second", "--only", "nobody"]) == 2
    assert "--only: nobody" in capsys.readouterr().err
    assert main(["plan", "--profile", str(tmp_path / "none.json"), "--requests-per-second", "5"]) == 2
    assert "none.json" in capsys.readouterr().err


def test_the_cases_that_are_checked_reach_a_thousand_replicas() -> None:
    rates = [case.demand.requests_per_second for case in cases()]
    assert max(rates) > 1000 * min(rates)


@pytest.mark.parametrize("least", [1, 2, 7, 46, 100])
def test_the_least_number_is_found_to_a_twentieth_and_halves_tell_a_factor_of_two(least: int) -> None:
    tried: list[int] = []

    def suffices(count: int) -> bool:
        tried.append(count)
        return count >= least

    found = least_count(100, suffices)
    assert least <= found <= max(least + 1, 1.05 * least + 1)
    assert len(tried) <= 8
    assert is_close(100, least_count(100, suffices, halves=True)) is (least > 50)


def test_a_plan_is_too_large_from_twice_the_number_that_suffices_but_for_one_more() -> None:
    assert is_close(2, 1)
    assert is_close(40, 20)
    assert not is_close(41, 20)
    assert not is_close(3, 1)


def test_a_plan_far_too_large_is_told_by_simulations_of_it() -> None:
    """What is planned for decoders that may be a fifth full is several times as much as suffices."""
    usual = demand(requests_per_second=16, spare=0, repeated_images=100, target_ms=1000)
    right, wasteful = (check(profile(), Case("some", replace(usual, utilisation=share, imbalance=1))) for share in (0.75, 0.2))
    assert (right["met"], right["not_oversized"]) == (True, True)
    assert (wasteful["met"], wasteful["not_oversized"]) == (True, False)
    assert wasteful["least"]["decoders"] < wasteful["decoders"] / 2
