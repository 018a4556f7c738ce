"""`--model_args`, as lmms-eval splits them."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.lmms_eval_plugin.arguments import Given, parse_arguments
from vscan.errors import InvalidArgument
from vscan.specs import FrameCount, KeepRatio, TargetAverage, TokensPerTile


def test_budgets_and_the_connection_are_read_as_the_command_line_reads_them() -> None:
    arguments = parse_arguments(
        {"server": "'a:7070,b:7070'", "budget": "avg:11.1%", "keep": '"33%,50%"', "timeout": 30, "frames": 8, "merge": False}
    )
    assert arguments.connection.client_arguments(None)["server"] == ["a:7070", "b:7070"]
    assert arguments.connection.timeout_s == 30
    asked = arguments.budgets.ask_options()
    reduction, prune = asked["reduction"], asked["prune"]
    assert reduction is not None
    assert reduction.budget == TargetAverage(0.111)
    assert reduction.merge is False
    assert prune is not None
    assert prune.budgets == (KeepRatio(0.33), KeepRatio(0.5))
    assert arguments.budgets.frame_sampling() == FrameCount(8)


def test_a_number_of_tokens_comes_as_a_number() -> None:
    reduction = parse_arguments({"budget": 96}).budgets.ask_options()["reduction"]
    assert reduction is not None
    assert reduction.budget == TokensPerTile(96)


def test_what_is_not_given_is_the_deployments() -> None:
    arguments = parse_arguments({"batch_size": 1, "device": "cuda:0"})  # which lmms-eval gives to every model
    asked = arguments.budgets.ask_options()
    assert asked["reduction"] is None
    assert asked["prune"] is None
    assert arguments.system_prompt == ""


def test_the_system_prompt_may_be_a_files(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("Answer briefly.\n")
    assert parse_arguments({"system_prompt": str(tmp_path / "prompt.txt")}).system_prompt == "Answer briefly."
    assert parse_arguments({"system_prompt": "Answer at length."}).system_prompt == "Answer at length."


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"bugdet": "96"}, "model_args.bugdet: no such argument"),
        ({"max_new_tokens": 5}, "model_args.max_new_tokens: no such argument"),  # the task's to say
        ({"concurrent": 0}, "model_args.concurrent: 0, limit at least 1"),
        ({"concurrent": 2.5}, "model_args.concurrent: 2.5 is not a whole number"),
        ({"insecure": "yes"}, "model_args.insecure: 'yes', limit true, false"),
        ({"budget": "half"}, "model_args.budget: 'half' is neither"),
        ({"local_share": 2.0}, "model_args.reduction.local_share: 2"),
        ({"frames": 8, "fps": 1.0}, "model_args.video.sampling: either"),
    ],
)
def test_a_bad_argument_is_named(given: dict[str, Given], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_arguments(given)
    assert named in str(caught.value)
