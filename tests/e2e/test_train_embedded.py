"""The training command with a thousandth of its steps: from nothing to a checkpoint with its card, and ended halfway."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from embedded_model.album import draw_album
from embedded_model.export import build_processor
from embedded_model.questions import FAMILIES
from embedded_model.train.plan import PLANS, scaled
from embedded_model.train.state import saved_progress

SCALE = 0.001
SIDE_BY_SIDE = ("vision", "language")
Training = subprocess.Popen[str]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def start(out: Path) -> Iterator[Callable[[], Training]]:
    """Starts the command in a process group of its own; its pipe ends once the whole group has ended."""
    started: list[Training] = []
    command = [sys.executable, "-m", "embedded_model.train", "--out", str(out), "--seed", "3"]
    command += ["--device", "cpu", "--no-compiled", "--scale", str(SCALE)]

    def start() -> Training:
        started.append(
            subprocess.Popen(
                command,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for training in started:
        if training.poll() is None:
            os.killpg(training.pid, signal.SIGKILL)
            training.wait()


def done(out: Path, name: str) -> bool:
    """Whether a stage has saved all its steps."""
    return saved_progress(out / name).step == scaled(PLANS[name].steps, SCALE)


def end_after_the_first_stages(training: Training, out: Path) -> None:
    """Waits until the first two stages are saved, then ends the command; its stages end with it, and so does the pipe."""
    while training.poll() is None and not all(done(out, name) for name in SIDE_BY_SIDE):
        time.sleep(0.01)
    training.terminate()
    said, _ = training.communicate()
    assert training.returncode == 128 + signal.SIGTERM, said


@torch.no_grad()
def said_by(checkpoint: Path) -> list[str]:
    """What the checkpoint answers to a question, as transformers runs it."""
    (picture,) = draw_album(8, pictures=1, questions=1)
    model = LlavaForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    inputs = processor(images=picture.image, text=f"USER: <image> {picture.questions[0].text} ASSISTANT:", return_tensors="pt")
    tokens = model.generate(**inputs, min_new_tokens=1)[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.convert_ids_to_tokens(tokens)  # type: ignore[no-any-return]  # untyped in transformers


@pytest.mark.timeout(600)
def test_training_goes_on_where_it_was_ended_and_leaves_a_checkpoint_with_its_card(
    out: Path, start: Callable[[], Training]
) -> None:
    end_after_the_first_stages(start(), out)
    assert not done(out, "dropout")
    assert not (out / "checkpoint").exists()
    saved = {name: (out / f"{name}.safetensors").stat().st_mtime_ns for name in SIDE_BY_SIDE}

    resumed = start()
    said, _ = resumed.communicate()
    assert resumed.returncode == 0, said
    assert all(done(out, name) for name in PLANS)
    assert saved == {name: (out / f"{name}.safetensors").stat().st_mtime_ns for name in SIDE_BY_SIDE}

    checkpoint = out / "checkpoint"
    assert set(said_by(checkpoint)) <= set(build_processor().tokenizer.get_vocab())
    card = (checkpoint / "README.md").read_text()
    assert "--seed 3" in card
    assert all(f"`{name}`" in card for name in PLANS)
    assert all(family in said for family in FAMILIES)
    assert "Apache License" in (checkpoint / "LICENSE").read_text()
