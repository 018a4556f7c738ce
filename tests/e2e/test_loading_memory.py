"""A service's half loads without the other half ever being in memory of the process' own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.llava_next import make_checkpoint
from tests.support.qwen import make_qwen

# Beside the weights: modules that are first imported while loading, and one small picture preprocessed.
_OVERHEAD_BYTES = 16 * 2**20
_CHILD = """
import json, sys, threading, torch
from pathlib import Path
from decoder_service.language.registry import load_language
from encoder_service.vision.registry import load_vision
from vscan.checkpoint import Checkpoint

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

half, folder, dtype = sys.argv[1], sys.argv[2], getattr(torch, sys.argv[3])
checkpoint = Checkpoint.open(folder)
before = peak = anonymous_bytes()
done = threading.Event()

def sample():
    global peak
    while not done.wait(0.0005):
        peak = max(peak, anonymous_bytes())

sampler = threading.Thread(target=sample)
sampler.start()
load = load_vision if half == "vision" else load_language
model = load(checkpoint, dtype=dtype, device=torch.device("cpu"))
done.set()
sampler.join()
print(json.dumps(max(peak, anonymous_bytes()) - before))
"""
_BYTES = {"float16": 2, "float32": 4}


@pytest.fixture(scope="module", params=["llava_next", "qwen2_5_vl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two halves of tens of megabytes, stored in float16."""
    directory = tmp_path_factory.mktemp(request.param)
    if request.param == "llava_next":
        return make_checkpoint(directory, hidden_size=640, dtype=torch.float16)
    make_qwen(directory, scale=20, dtype=torch.float16)
    return directory


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("half", ["vision", "language"])
def test_no_more_than_its_half_is_taken(checkpoint: Path, half: str, dtype: str) -> None:
    language, vision = parameters(checkpoint)
    own, other = (vision, language) if half == "vision" else (language, vision)
    child = subprocess.run([sys.executable, "-c", _CHILD, half, checkpoint, dtype], capture_output=True, text=True, check=True)
    taken = json.loads(child.stdout.splitlines()[-1])
    limit = 1.1 * own * _BYTES[dtype] + _OVERHEAD_BYTES
    assert limit < (own + other) * _BYTES[dtype], "a whole checkpoint in memory would be seen"
    assert taken <= limit


def parameters(checkpoint: Path) -> tuple[int, int]:
    """Of the language half, and of everything else."""
    tensors = load_file(checkpoint / "model.safetensors")
    of_language = ("language_model.", "model.", "lm_head.")
    language = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(of_language))
    return language, sum(tensor.numel() for tensor in tensors.values()) - language
