"""The demo, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def demo(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "demo"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False)


def test_a_seed_that_is_no_number_is_refused(tmp_path: Path) -> None:
    done = demo(tmp_path, SEED="seven")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (1, "SEED: 'seven' is not a whole number", "")


def test_the_demo_succeeds_with_any_seed_and_writes_its_pictures(tmp_path: Path) -> None:
    done = demo(tmp_path, SEED="20")
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = sorted((tmp_path / "demo_out").glob("*.png"))
    assert len(pictures) == 12
    assert all(Image.open(picture).width > Image.open(picture).height for picture in pictures)
    for part in ("encoded", "memory", "redis", "a new picture", "the same picture again", "accuracy"):
        assert part in done.stdout
