"""The file of `vscan up --settings` and `vscan serve … --settings`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.client_cli import vscan
from vscan.errors import InvalidArgument, StartupError
from vscan_client.cli.settings_file import read_settings

TEXT = """
[encoder]
window = 3
reduction_merge = false
[decoder]
prune_layers = [8, 16]
prune_rater = "text_mean"
[gateway]
require_token = true
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "s.toml"
    path.write_text(text)
    return path


def test_values_become_what_variables_have(tmp_path: Path) -> None:
    file = read_settings(written(tmp_path, TEXT))
    assert file.of("encoder", {}) == {"window": "3", "reduction_merge": "false"}
    assert file.of("decoder", {}) == {"prune_layers": "8,16", "prune_rater": "text_mean"}
    assert file.of("gateway", {}) == {"require_token": "true"}


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = read_settings(written(tmp_path, TEXT))
    assert file.of("encoder", {"vscan_encoder_WINDOW": "6"}) == {"reduction_merge": "false"}
    assert file.of("decoder", {"VSCAN_ENCODER_PRUNE_LAYERS": "1"})["prune_layers"] == "8,16"


def test_no_file_sets_nothing() -> None:
    assert read_settings(None).of("encoder") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[encoder", "s.toml"),
        ("[page]\nx = 1", "'page'"),
        ("encoder = 3", "'encoder'"),
        ("window = 3", "'window'"),
        ("[encoder]\nwindow = {a = 1}", "[encoder] window"),
        ("[decoder]\nprune_layers = []", "[decoder] prune_layers"),
        ("[encoder]\nVSCAN_ENCODER_WINDOW = 3", "VSCAN_ENCODER_WINDOW"),
    ],
)
def test_what_is_no_file_of_settings_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match="--settings") as refused:
        read_settings(written(tmp_path, text))
    assert said in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    ran = vscan("up", "--settings", tmp_path / "none.toml")
    assert (ran.code, "none.toml: No such file" in ran.one_line) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[encoder]\nshalow_layer = 2", "shalow-layer: no such setting"),
        ("[encoder]\nwindow = 0", "window: Input should be greater than or equal to 1"),
    ],
)
def test_serve_refuses_an_unknown_or_a_bad_setting_and_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    ran = vscan("serve", "encoder", "--settings", written(tmp_path, text))
    assert ran.code == 1
    assert said in ran.one_line
    assert "s.toml" in ran.one_line


def test_an_error_that_is_not_of_the_file_does_not_name_it(tmp_path: Path) -> None:
    file = read_settings(written(tmp_path, TEXT))
    with pytest.raises(StartupError) as ours, file.named_in_errors():
        raise StartupError("encoder: VSCAN_ENCODER_WINDOW: too large")
    with pytest.raises(StartupError) as others, file.named_in_errors():
        raise StartupError("encoder: VSCAN_ENCODER_WINDOW_SIZE: no such setting")
    assert (str(ours.value).endswith("s.toml)"), "s.toml" in str(others.value)) == (True, False)
