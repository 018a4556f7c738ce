"""Options of the command line as the SDK's values."""

from pathlib import Path
from typing import Any

import pytest

from vscan.errors import InvalidArgument
from vscan.specs import (
    Budget,
    JsonSchema,
    KeepRatio,
    KeepTokens,
    PositionPolicy,
    PruneBudget,
    PruneSpec,
    Rater,
    Ratio,
    ReductionMethod,
    ReductionSpec,
    Regex,
    SamplingSpec,
    TargetAverage,
    TokensPerTile,
    TotalTokens,
)
from vscan_client import FrameCount, FrameRate, Image, Video
from vscan_client.cli.questions import QuestionOptions, parse_budget, parse_files, parse_keep


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("96", TokensPerTile(96)),
        ("total:256", TotalTokens(256)),
        ("33%", Ratio(0.33)),
        ("100%", Ratio(1.0)),
        ("avg:11.1%", TargetAverage(0.111)),
        ("16.7%", Ratio(0.167)),
    ],
)
def test_a_budget(text: str, budget: Budget) -> None:
    parsed = parse_budget(text)
    assert type(parsed) is type(budget)
    if isinstance(parsed, TokensPerTile | TotalTokens):
        assert parsed == budget
    else:
        assert isinstance(budget, Ratio | TargetAverage)
        assert parsed.fraction == pytest.approx(budget.fraction)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-3",
        "1.5",
        "0%",
        "101%",
        "avg:",
        "avg:96",
        "avg:200%",
        "total:",
        "total:0",
        "total:33%",
        "nan%",
        "x%",
        "33 %x",
        "٣",
    ],
)
def test_a_bad_budget_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="budget"):
        parse_budget(text)


@pytest.mark.parametrize(
    ("text", "budgets"),
    [("32", (KeepTokens(32),)), ("33%", (KeepRatio(0.33),)), ("64, 50%", (KeepTokens(64), KeepRatio(0.5)))],
)
def test_what_pruning_keeps(text: str, budgets: tuple[PruneBudget, ...]) -> None:
    assert parse_keep(text) == budgets


@pytest.mark.parametrize("text", ["", "32,", "0", "x", "avg:3%"])
def test_a_bad_keep_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_keep(text)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"budget": "0"}, "reduction.budget.tokens_per_tile"),
        ({"budget": "101%"}, "reduction.budget.ratio"),
        ({"budget": "avg:0%"}, "reduction.budget.target_average"),
        ({"budget": "total:0"}, "reduction.budget.total_tokens"),
        ({"local_share": 1.5}, "reduction.local_share"),
        ({"local_share": float("nan")}, "reduction.local_share"),
        ({"reduction": "random", "seed": -1}, "reduction.seed"),
        ({"keep": "0"}, "prune.budgets[0].tokens"),
        ({"keep": "8,200%"}, "prune.budgets[1].ratio"),
        ({"rater": "random", "seed": -1}, "prune.seed"),
    ],
)
def test_a_value_out_of_range_is_named_as_the_server_names_it(options: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        QuestionOptions(**options).ask_options()
    assert caught.value.field == path


def test_what_was_not_asked_for_stays_the_deployments() -> None:
    options = QuestionOptions().ask_options()
    assert options == {"reduction": None, "prune": None, "sampling": SamplingSpec(), "report_kept": False, "priority": 0}


def test_what_was_asked_for() -> None:
    options = QuestionOptions(
        reduction="random", budget="24", rater="random", keep="8", seed=7, stop=("a",), max_new_tokens=3, report_kept=True
    ).ask_options()
    assert options["reduction"] == ReductionSpec(method=ReductionMethod.RANDOM, budget=TokensPerTile(24), seed=7)
    assert options["prune"] == PruneSpec(rater=Rater.RANDOM, budgets=(KeepTokens(8),), seed=7)
    assert options["sampling"] == SamplingSpec(max_new_tokens=3, seed=7, stop=("a",))
    assert options["report_kept"]


def test_everything_that_the_contract_takes_can_be_asked_for() -> None:
    options = QuestionOptions(local_share=0.25, merge=False, positions="keep", ignore_eos=True, logprobs=2).ask_options()
    assert options["reduction"] == ReductionSpec(local_share=0.25, merge=False)
    assert options["prune"] == PruneSpec(positions=PositionPolicy.KEEP)
    assert options["sampling"] == SamplingSpec(ignore_eos=True, logprobs=2)
    more = QuestionOptions(
        min_p=0.1, repetition_penalty=1.5, presence_penalty=1.0, frequency_penalty=-1.0, stop_token_ids=(3,), regex="a|b"
    )
    assert more.ask_options()["sampling"] == SamplingSpec(
        min_p=0.1,
        repetition_penalty=1.5,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        stop_token_ids=(3,),
        constraint=Regex("a|b"),
    )
    schema = QuestionOptions(json_schema='{"type": "object"}').ask_options()["sampling"]
    assert schema == SamplingSpec(constraint=JsonSchema('{"type": "object"}'))
    assert schema == SamplingSpec(constraint=JsonSchema.of({"type": "object"}))


def test_a_schema_beside_an_expression_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"^sampling\.regex: beside a json_schema"):
        QuestionOptions(json_schema="{}", regex="a").ask_options()


def test_a_schema_must_be_json() -> None:
    with pytest.raises(InvalidArgument, match=r"^sampling\.json_schema: not JSON"):
        JsonSchema.of({"enum": [object()]})


def test_a_budget_alone_leaves_the_method_to_the_deployment() -> None:
    assert QuestionOptions(budget="24", seed=7).ask_options()["reduction"] == ReductionSpec(budget=TokensPerTile(24))


@pytest.mark.parametrize(
    ("field", "options"),
    [("reduction", {"reduction": "best"}), ("rater", {"rater": "best"}), ("positions", {"positions": "best"})],
)
def test_an_unknown_name_lists_the_known_ones(field: str, options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match=f"{field}: 'best', limit .*(random|renumber)"):
        QuestionOptions(**options).ask_options()  # type: ignore[arg-type]


def test_which_frames_are_looked_at() -> None:
    assert QuestionOptions().frame_sampling() is None
    assert QuestionOptions(frames=8).frame_sampling() == FrameCount(8)
    assert QuestionOptions(fps=0.5).frame_sampling() == FrameRate(0.5)
    with pytest.raises(InvalidArgument, match=r"video\.sampling"):
        QuestionOptions(frames=8, fps=0.5).frame_sampling()


def test_a_file_is_what_it_is_or_what_it_is_said_to_be(tmp_path: Path) -> None:
    image, video = Image.from_bytes(b"GIF89a"), Video.from_bytes(b"\x1a\x45\xdf\xa3")
    for name, data in (("a.gif", image.data), ("b.webm", video.data)):
        (tmp_path / name).write_bytes(data or b"")
    assert parse_files(["a.gif", "b.webm", f"sha256:{image.digest}"], [], None, tmp_path) == [image, video, image.bare]
    said = parse_files([str(tmp_path / "b.webm")], [str(tmp_path / "a.gif"), f"sha256:{video.digest}"], FrameCount(2))
    assert said == [
        Video.from_bytes(b"\x1a\x45\xdf\xa3", frames=2),
        Video.from_bytes(b"GIF89a", frames=2),
        Video.from_digest(video.sha256, frames=2),
    ]
    with pytest.raises(InvalidArgument, match=r"video\.sampling: there is no video"):
        parse_files(["a.gif"], [], FrameCount(2), tmp_path)
