"""What a comparison consists of: its steps, its cases, and the images that they need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from studies.load.configurations import STEPS
from studies.load.hardware import Cores
from studies.load.options import BenchOptions, mix
from studies.load.setup import cases_of, check_equal_memory
from studies.load.workload import Workload
from vscan.errors import InvalidArgument
from vscan.specs import KeepTokens, Rater, ReductionMethod, TokensPerTile


def test_each_step_turns_off_what_the_next_one_has() -> None:
    ((asked,), _) = mix([], ["24"], [], "8")
    told = []
    for step in STEPS:
        settings, options = step.settings({"decoder": {"max_running": "2"}}), step.ask_options(asked)
        assert settings["decoder"]["max_running"] == "2"
        reduction, prune = options["reduction"], options["prune"]
        assert reduction is not None
        assert prune is not None
        told.append(
            (
                "none" if reduction.method is ReductionMethod.NONE else reduction.budget,
                "none" if prune.rater is Rater.NONE else prune.budgets,
                settings["decoder"].get("prune_layers"),
                {settings[service].get("cache_memory_bytes") for service in ("encoder", "decoder")},
                settings["decoder"]["kv_reuse"],
            )
        )
    kept, budgets = TokensPerTile(24), (KeepTokens(8),)
    assert told == [
        ("none", "none", "none", {"0"}, "false"),
        (kept, "none", "none", {"0"}, "false"),
        (kept, budgets, None, {"0"}, "false"),
        (kept, budgets, None, {None}, "false"),
        (kept, budgets, None, {None}, "true"),
    ]
    assert [step.cached for step in STEPS] == [False, False, False, True, True]


def test_a_comparison_has_few_images_in_one_case_and_only_new_ones_in_the_other() -> None:
    options = BenchOptions(workload=Workload(requests=10, images=5), compare=True, rounds=3, many=4, many_requests=2)
    one, many = cases_of(options)
    assert (one.label, many.label) == ("repeated questions, one of 5 images", "4 new images a question")
    assert (len(one.album), len(many.album)) == (5, 4 * 2 * 4)  # of a warm-up and three rounds
    seen = [image for part in range(4) for ask in many.load.asks(part) for image in ask.images]
    assert seen == list(range(32))


def test_a_folder_gives_as_many_images_as_it_has_and_new_ones_must_suffice(tmp_path: Path) -> None:
    for name in "cab":
        (tmp_path / f"{name}.png").write_bytes(name.encode())
    (case,) = cases_of(BenchOptions(workload=Workload(requests=50, images=1), images=tmp_path))
    assert {image for ask in case.load.asks() for image in ask.images} == {0, 1, 2}
    assert [case.album[number].data for number in range(3)] == [b"a", b"b", b"c"]
    with pytest.raises(InvalidArgument) as caught:
        cases_of(BenchOptions(workload=Workload(requests=4, fresh=True), images=tmp_path))
    assert str(caught.value) == "--images: 3 images, none of which may come twice, limit at least 8"


def test_stacks_of_a_comparison_have_equal_memory_or_are_not_started() -> None:
    options = BenchOptions(workload=Workload(requests=1), compare=True)
    check_equal_memory(options, "cpu")
    check_equal_memory(replace(options, settings={"decoder": {"kv_cache_bytes": "1000"}}), "cuda")
    with pytest.raises(InvalidArgument, match=r"decoder\.kv_cache_bytes=BYTES"):
        check_equal_memory(options, "cuda")


def test_services_have_as_many_threads_as_cores() -> None:
    assert Cores((0, 1), (2, 3, 4)).threads == {"decoder": {"torch_threads": "2"}, "encoder": {"torch_threads": "3"}}


def test_transformers_computes_as_the_decoder_does() -> None:
    options = BenchOptions(workload=Workload(requests=1), transformers=True)
    assert (options.peer_dtype, options.peer_most_tokens) == ("auto", 256)
    given = replace(options, settings={"decoder": {"dtype": "bfloat16", "default_max_new_tokens": "9"}})
    assert (given.peer_dtype, given.peer_most_tokens) == ("bfloat16", 9)
