"""The demo, run as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_demo_succeeds_with_any_seed_and_writes_its_pictures(tmp_path: Path) -> None:
    environment = {**os.environ, "SEED": "20", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = sorted((tmp_path / "demo_out").glob("*.png"))
    assert len(pictures) == 12
    assert all(Image.open(picture).width > Image.open(picture).height for picture in pictures)
    for part in ("encoded", "memory", "redis", "a new picture", "the same picture again", "accuracy"):
        assert part in done.stdout
