"""What `vscan tune` refuses before anything is started."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from tests.support.client_cli import vscan


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--shallow-layer", "1,x"], "--shallow-layer: 'x', limit 0 to"),
        (["--window", "0"], "--window: '0', limit 1 to"),
        (["--local-share", "0.5,2"], "--local-share: '2', limit 0 to 1"),
        (["--local-share", "half"], "--local-share: 'half', limit 0 to 1"),
        (["--prune-layer", "8+4"], "--prune-layer: '8+4', limit layers that ascend"),
        (["--rater", "last_token,best"], "--rater: 'best', limit last_token, "),
        (["--budget", "avg:11"], "--budget: '11' is not a percentage"),
        (["--budget", "total:64"], "--budget: 'total:64' is a request's only"),
        (["--budget", "150%"], "--budget: "),
        (["--keep", "33"], "--keep: '33', limit a share, such as 33%, or default"),
        (["--keep", "50%,0%"], "--keep: "),
        (["--keep", "150%"], "--keep: "),
        (["-s", "decoder.kv_reuse=true"], "-s: decoder.kv_reuse is chosen by the run itself"),
        (["-s", "encoder.window=3", "--window", "6"], "-s: encoder.window beside --window, limit one of the two"),
        (["-s", "gateway.x=1"], "encoder.NAME=VALUE"),
        (["--model", "/nowhere"], "--data: a checkpoint of your own needs questions of your own"),
        (["--data", "/nowhere"], "/nowhere/questions.jsonl: No such file"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(tmp_path: Path, arguments: list[str], said: str) -> None:
    ran = vscan("tune", "--out", tmp_path / "out", *arguments)
    assert ran.code == 2
    assert said in ran.one_line
    assert not (tmp_path / "out").exists()


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("torch", "matplotlib") else real(name, package)

    monkeypatch.setattr("vscan_client.cli.tune.find_spec", without)
    ran = vscan("tune")
    assert ran.code == 2
    assert "needs torch: pip install 'vscan-serve[serve,plot]'" in ran.one_line
