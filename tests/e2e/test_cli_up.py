"""`vscan up`: three processes that live and end together, and a refusal that is one line."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import httpx2
import psutil
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from embedded_model.album import draw_album
from tests.support.client_cli import in_a_process, vscan
from tests.support.client_up import WAIT_S, taken_ports, vscan_up
from tests.support.gateway import question

TINY = Path(__file__).parents[1] / "data" / "parity" / "llava15"
FREE = ("--decoder", "127.0.0.1:0", "--encoder", "127.0.0.1:0")
VISION = ("vision_tower", "multi_modal_projector")
# As `vscan tune` writes it.
SETTINGS = """\
[encoder]
window = 6
reduction_target_average = 0.25
[decoder]
prune_layers = [2, 5]
prune_rater = "text_mean"
prune_keep = 0.5
"""
PAGE = ("--page", "--page-bind", "127.0.0.1:0")
GATEWAY = ("--gateway", "--gateway-bind", "127.0.0.1:0", "-s", "gateway.max_json_depth=9")
ONE_THREAD = ("-s", "encoder.torch_threads=1", "-s", "decoder.torch_threads=1")


def test_it_answers_and_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    (picture,) = draw_album(5, pictures=1, questions=1)
    (tmp_path / "picture.png").write_bytes(picture.png())
    (tmp_path / "settings.toml").write_text(SETTINGS)
    options = (*FREE, *ONE_THREAD, *PAGE, *GATEWAY, "--settings", "settings.toml", "-s", "encoder.window=4")
    with vscan_up(*options, folder=tmp_path) as up:
        up.wait_ready()
        assert up.children.keys() == {"redis", "encoder", "decoder", "gateway", "page"}
        told = json.loads(vscan("describe", "--server", up.addresses["decoder"], "--encoder", up.addresses["encoder"]).out)
        assert (told["decoder"]["prune_layers"], told["decoder"]["prune"]["rater"]) == ([2, 5], "text_mean")
        assert told["encoder"]["reduction"]["budget"] == {"target_average": 0.25}
        assert told["encoder"]["window"] == 4  # an option wins over the file
        state = httpx2.get(f"{up.addresses['page']}state").json()
        assert [state[name]["state"] for name in ("decoder", "encoder", "redis")] == ["ready"] * 3
        ran = vscan("ask", tmp_path / "picture.png", picture.questions[0].text, "--server", up.addresses["decoder"])
        assert ran.code == 0
        assert ran.out.strip()
        asked = {"messages": question(picture.questions[0].text, picture.png()), "model": "embedded", "logprobs": True}
        (choice,) = httpx2.post(f"{up.addresses['gateway']}/chat/completions", json=asked, timeout=WAIT_S).json()["choices"]
        assert choice["message"]["content"] == ran.out.strip()
        assert "token_id:" not in str(choice["logprobs"])  # it has the checkpoint's tokenizer
        deep = httpx2.post(f"{up.addresses['gateway']}/chat/completions", json={"metadata": [[[[[[[[[[]]]]]]]]]]})
        assert (deep.status_code, "9" in deep.json()["error"]["message"]) == (400, True)
        code, err = up.end(signal.SIGINT)
        assert (code, err) == (0, [])
        assert up.left() == []
    # What the services logged came through, each line with its service's name.
    assert any(line.startswith("decoder | ") and "is ready" in line for line in up.said)


def test_when_one_dies_the_others_are_ended_and_it_says_which(tmp_path: Path) -> None:
    with vscan_up(*FREE, *ONE_THREAD, "--model", TINY, "--logs", "logs", folder=tmp_path) as up:
        up.wait_ready()
        up.children["encoder"].kill()
        code, err = up.outcome()
        assert code == 1
        (line,) = err
        assert line.startswith("vscan: encoder: ended by SIGKILL")
        assert up.left() == []
    assert "is ready" in (tmp_path / "logs" / "decoder.log").read_text()


def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path) -> None:
    with vscan_up(*FREE, folder=tmp_path) as up:
        up.read_until("starting")
        while len(up.children) < 2 and up.process.poll() is None:
            up.remember_children()
        code, err = up.end(signal.SIGINT)
        assert (code, err) == (130, [])
        assert up.left() == []


@pytest.mark.parametrize(("when", "expected"), [("starting", 130), ("  stop", 0)])
def test_told_to_stop_it_leaves_no_process_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, expected: int
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with vscan_up(*FREE, *ONE_THREAD, "--model", TINY, folder=tmp_path) as up:
        up.read_until(when)
        while not up.children and up.process.poll() is None:
            up.remember_children()
        assert len(list(temporary.glob("vscan-*"))) == 1
        assert up.end(signal.SIGTERM) == (expected, [])
        assert up.left() == []
    assert list(temporary.glob("vscan-*")) == []


@pytest.mark.parametrize("service", ["decoder", "encoder"])
def test_a_port_in_use_is_one_line(service: str) -> None:
    with taken_ports(1) as (address,):
        ran = vscan("up", *FREE, f"--{service}", address)
    assert ran.code == 1
    assert ran.one_line == f"vscan: {service}: cannot listen on {address}: Address already in use"


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    ran = vscan("up", *FREE, "--model", tmp_path / "gone")
    assert (ran.code, ran.one_line) == (1, f"vscan: model: {tmp_path / 'gone'} is not a directory")


def test_a_folder_that_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    ran = vscan("up", *FREE, "--model", tmp_path)
    assert (ran.code, ran.one_line) == (1, f"vscan: model: {tmp_path} has no config.json: not a Hugging Face checkpoint")


def test_a_bad_option_is_one_line() -> None:
    assert vscan("up", *FREE, "-s", "max_queue=3").one_line.startswith("vscan: -s: 'max_queue=3' is not of the form")
    assert vscan("up", "--decoder", "nowhere").one_line.startswith("vscan: decoder: 'nowhere' is not of the form host:port")


@pytest.mark.parametrize(("lost", "service"), [("vision", "encoder"), ("language", "decoder")])
def test_half_a_checkpoint_is_one_line_that_says_who_cannot_start(tmp_path: Path, lost: str, service: str) -> None:
    half = half_checkpoint(tmp_path / "half", lost=lost)
    code, err = started(tmp_path, "--model", half)
    (line,) = err
    assert code == 1
    assert line.startswith(f"vscan: {service}: ")
    assert str(half) in line


def test_serve_runs_one_service_until_it_is_told_to_stop(tmp_path: Path) -> None:
    command = in_a_process(
        "serve",
        "encoder",
        "--model",
        TINY,
        "--bind",
        "127.0.0.1:0",
        "--redis-url",
        "",
        "--max-queue",
        "3",
        "-s",
        "torch-threads=1",
    )
    with subprocess.Popen([*command, "--ready-file", "address"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("is ready" in line for line in process.stdout)
        address = (tmp_path / "address").read_text().strip()
        ran = vscan("encode", TINY.parent / "sq_a.png", "--encoder", address)
        assert (ran.code, '"place": "encoded"' in ran.out) == (0, True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


@pytest.mark.parametrize("arguments", [("--max-queue", "x"), ("--no-such-setting", "1"), ("-s", "bind=nowhere")])
def test_serve_names_the_option_at_fault(arguments: tuple[str, str]) -> None:
    ran = vscan("serve", "decoder", *arguments)
    assert ran.code == 1
    option = "--bind" if arguments[0] == "-s" else arguments[0]
    assert ran.one_line.startswith(f"vscan-decoder: {option}: ")


def started(folder: Path, *arguments: object) -> tuple[int, list[str]]:
    """How a `vscan up` that cannot start ends; nothing is left of it."""
    before = {process.pid for process in psutil.process_iter()}
    with vscan_up(*FREE, *arguments, folder=folder) as up:
        outcome = up.outcome()
    ours = [
        process
        for process in psutil.process_iter()
        if process.pid not in before and str(folder) in " ".join(_environment(process))
    ]
    assert ours == []
    return outcome


def _environment(process: psutil.Process) -> list[str]:
    try:
        return list(process.environ().values())
    except psutil.Error:
        return []


def half_checkpoint(folder: Path, *, lost: str) -> Path:
    """A copy of the tiny checkpoint without the tensors of one half."""
    shutil.copytree(TINY, folder)
    with safe_open(TINY / "model.safetensors", "pt") as file:
        every: list[str] = file.keys()
        names = [name for name in every if any(part in name for part in VISION) == (lost == "language")]
        assert names
        save_file({name: file.get_tensor(name) for name in names}, folder / "model.safetensors", {"format": "pt"})
    return folder
