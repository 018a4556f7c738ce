"""What a person at a terminal sees besides the answers."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.client_cli import in_a_process
from tests.support.client_decoder import ScriptedDeployment

WAIT_S = 60


def on_a_terminal(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Runs `vscan ARGUMENTS`, which must end with `code`, with stderr on a terminal; gives its stdout and what that got."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
        with subprocess.Popen(
            in_a_process(*arguments), stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True
        ) as process:
            os.close(theirs)
            seen = b""
            try:
                while piece := terminal.read(4096):
                    seen += piece
            except OSError:
                pass  # Linux's way to say that the other end was closed
            assert process.stdout is not None
            out = process.stdout.read()
            assert process.wait(WAIT_S) == code
    return out, seen.decode()


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    (tmp_path / "cat.png").write_bytes(b"cat")
    return tmp_path / "cat.png"


def test_a_line_about_the_tokens_follows_the_answer(address: str, cat: Path) -> None:
    out, seen = on_a_terminal("ask", cat, "what?", "--server", address)
    assert out == "1 image(s): what?\n"
    assert seen.startswith("[visual tokens 144 → 24 → 8 · encoded · first token after ")


def test_a_batch_shows_how_far_it_is(address: str, cat: Path) -> None:
    questions = cat.with_name("questions.jsonl")
    questions.write_text("".join(json.dumps({"id": n, "image": "cat.png", "question": "?"}) + "\n" for n in range(7)))
    _, seen = on_a_terminal("ask-many", questions, "--server", address)
    assert "7/7" in seen
    assert "7 answered, 0 failed, 0 were answered before" in seen


def test_warming_shows_how_far_it_is_and_what_fails_above_the_bar(
    deployment: ScriptedDeployment, address: str, cat: Path
) -> None:
    for number in range(6):
        cat.with_name(f"{number}.png").write_bytes(bytes([number]))
    (cat.parent / "gone.png").symlink_to(cat.parent / "nowhere")
    out, seen = on_a_terminal("warm", cat.parent, "--encoder", address, code=1)
    assert out == ""
    assert "8/8" in seen
    assert f"{cat.parent / 'gone.png'}: No such file or directory" in seen
    assert "7 encoded, 0 were cached before, 0 were duplicates, 1 failed" in seen
    assert len(deployment.encodes) == 7
