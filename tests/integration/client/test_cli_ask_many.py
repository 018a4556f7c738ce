"""`vscan ask-many` against a real gRPC server."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_cli import in_a_process, vscan
from tests.support.client_decoder import ScriptedDeployment, serving
from vscan.errors import InternalError, ResourceExhausted


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Six questions about two pictures in a folder beside."""
    (tmp_path / "pictures").mkdir()
    for name in ("a", "b"):
        (tmp_path / "pictures" / f"{name}.png").write_bytes(name.encode() * 5000)
    path = tmp_path / "questions.jsonl"
    lines = [{"id": n, "image": f"pictures/{'ab'[n % 2]}.png", "question": f"number {n}?", "meta": n * n} for n in range(6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def answers_in(path: Path) -> dict[Any, dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = {line["id"]: line for line in lines}
    assert len(found) == len(lines)
    return found


def test_every_question_is_answered(deployment: ScriptedDeployment, address: str, questions: Path) -> None:
    ran = vscan("ask-many", questions, "--server", address)
    assert (ran.code, ran.out, ran.one_line) == (0, "", "6 answered, 0 failed, 0 were answered before")
    found = answers_in(questions.with_name("questions.answers.jsonl"))
    assert {n: (line["text"], line["meta"]) for n, line in found.items()} == {
        n: (f"1 image(s): number {n}?", n * n) for n in range(6)
    }
    assert found[0]["usage"]["visual_tokens"] == 24


def test_a_question_may_be_about_a_video(deployment: ScriptedDeployment, address: str, questions: Path) -> None:
    lines = [
        {"id": 1, "image": "pictures/a.png", "video": "pictures/b.png", "frames": 3, "question": "same?"},
        {"id": 2, "image": "pictures/a.png", "frames": 3, "question": "what?"},
    ]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ran = vscan("ask-many", questions, "--server", address)
    assert ran.one_line == "1 answered, 1 failed, 0 were answered before"
    found = answers_in(questions.with_name("questions.answers.jsonl"))
    assert found[1]["text"] == "1 image(s), 1 video(s): same?"
    assert "no video" in found[2]["error"]["message"]
    assert deployment.requests[0].chat.messages[0].parts[1].video.sampling.frames == 3


def test_a_question_may_ask_for_samples_and_say_how_urgent_it_is(
    deployment: ScriptedDeployment, address: str, questions: Path
) -> None:
    line = {"id": 1, "image": "pictures/a.png", "question": "what?", "samples": 2, "priority": -5}
    questions.write_text(json.dumps(line) + "\n")
    assert vscan("ask-many", questions, "--server", address).code == 0
    (told,) = answers_in(questions.with_name("questions.answers.jsonl")).values()
    assert told["samples"] == [
        {"text": text, "finish_reason": "end_of_sequence"} for text in ("1 image(s): what?", "1 1 image(s): 1 what?")
    ]
    assert deployment.requests[0].priority == -5


def test_questions_are_asked_together_up_to_a_bound(deployment: ScriptedDeployment, address: str, questions: Path) -> None:
    deployment.hold_before.clear()
    command = in_a_process("ask-many", questions, "--server", address, "--concurrency", 3)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        for _ in range(3):
            assert deployment.entered.acquire(timeout=30)
        deployment.hold_before.set()
        assert process.wait(timeout=60) == 0
    assert deployment.most_running == 3


def test_a_second_run_asks_nothing_again(deployment: ScriptedDeployment, address: str, questions: Path) -> None:
    out = questions.with_name("out.jsonl")
    vscan("ask-many", questions, "--out", out, "--server", address)
    before = out.read_text()
    ran = vscan("ask-many", questions, "--out", out, "--server", address)
    assert ran.one_line == "0 answered, 0 failed, 6 were answered before"
    assert out.read_text() == before
    assert len(deployment.requests) == 6


def test_errors_are_recorded_and_tried_again_by_the_next_run(
    deployment: ScriptedDeployment, address: str, questions: Path
) -> None:
    with questions.open("a") as file:
        file.write('{"id": "gone", "image": "gone.png", "question": "?"}\nnot json\n')
    deployment.fail_with = [InternalError("internal error")]
    out = questions.with_name("out.jsonl")
    ran = vscan("ask-many", questions, "--out", out, "--server", address)
    assert (ran.code, ran.one_line) == (1, "5 answered, 3 failed, 0 were answered before")
    errors = {n: line["error"]["name"] for n, line in answers_in(out).items() if "error" in line}
    assert sorted(errors.values()) == ["InternalError", "InvalidArgument", "InvalidArgument"]
    assert {"gone", "line:8"} < errors.keys()
    assert "gone.png" in answers_in(out)["gone"]["error"]["message"]

    ran = vscan("ask-many", questions, "--out", out, "--server", address)
    assert (ran.code, ran.one_line) == (1, "1 answered, 2 failed, 5 were answered before")
    assert sum("text" in line for line in answers_in(out).values()) == 6


def test_a_half_written_line_is_answered_again(deployment: ScriptedDeployment, address: str, questions: Path) -> None:
    out = questions.with_name("out.jsonl")
    vscan("ask-many", questions, "--out", out, "--server", address)
    out.write_text(out.read_text()[:-20])
    ran = vscan("ask-many", questions, "--out", out, "--server", address)
    assert (ran.code, ran.one_line) == (0, "1 answered, 0 failed, 5 were answered before")
    assert len(answers_in(out)) == 6


def test_ctrl_c_keeps_what_was_answered(deployment: ScriptedDeployment, address: str, questions: Path) -> None:
    out = questions.with_name("out.jsonl")
    command = in_a_process("ask-many", questions, "--out", out, "--server", address, "--concurrency", 1)
    deployment.hold_before.clear()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert deployment.entered.acquire(timeout=30)
        deployment.hold_before.set()
        for _ in range(2):
            assert deployment.entered.acquire(timeout=30)
        deployment.hold_before.clear()
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    answered = len(answers_in(out))
    assert answered >= 2
    deployment.hold_before.set()
    assert (
        f"{6 - answered} answered, 0 failed, {answered} were"
        in vscan("ask-many", questions, "--out", out, "--server", address).one_line
    )


def test_a_full_queue_is_waited_for(deployment: ScriptedDeployment, address: str, questions: Path) -> None:
    deployment.fail_with = [ResourceExhausted("full", retry_delay_ms=5)] * 8
    assert vscan("ask-many", questions, "--server", address).code == 0


def test_a_server_that_is_not_there_leaves_no_errors_behind(questions: Path) -> None:
    with serving(ScriptedDeployment()) as address:
        pass  # gone again
    ran = vscan("ask-many", questions, "--server", address, "--timeout", "1")
    assert ran.code == 3
    assert questions.with_name("questions.answers.jsonl").read_text() == ""


def test_the_questions_are_never_taken_for_answers(address: str, questions: Path) -> None:
    before = questions.read_text()
    ran = vscan("ask-many", questions, "--out", questions, "--server", address)
    assert (ran.code, questions.read_text()) == (2, before)
