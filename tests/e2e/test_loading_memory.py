"""A service's half loads without the other half ever being in memory of the process' own, nor its own weights twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from encoder_service.vision.registry import families
from tests.support.llava_next import make_checkpoint
from tests.support.qwen import make_qwen
from tests.support.video_llava import write_video_llava

# Beside the weights: modules that are first imported while loading, and one small picture preprocessed.
_OVERHEAD_BYTES = 16 * 2**20
# Beside one weight that is there twice: what the libraries hold of the layers that are tried.
_WORKSPACE_BYTES = 32 * 2**20
_CHILD = """
import itertools, json, os, sys, threading, torch
from pathlib import Path
from decoder_service.language.registry import load_language
from encoder_service.vision.registry import load_vision
from vscan.checkpoint import Checkpoint

def anonymous_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

def grown(work):
    before = peak = anonymous_bytes()
    done = threading.Event()

    def sample():
        nonlocal peak
        while not done.wait(0.0005):
            peak = max(peak, anonymous_bytes())

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        result = work()
    finally:
        done.set()
        sampler.join()
    return result, max(peak, anonymous_bytes()) - before

def load(half, dtype):
    loaded = load_vision if half == "vision" else load_language
    return loaded(checkpoint, dtype=getattr(torch, dtype), device=torch.device("cpu"))

torch.set_num_threads(1)
checkpoint = Checkpoint.open(sys.argv[1])
for half, dtype in itertools.product(["vision", "language"], ["float16", "float32"]):
    if not os.fork():  # each in a process of its own, with nothing loaded before
        model, taken = grown(lambda: load(half, dtype))
        print(json.dumps([half, dtype, taken]), flush=True)
        if half == "vision":
            print(json.dumps(["packing", dtype, grown(model.pack)[1]]), flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""
CLIP = "CLIPImageProcessor"
_BYTES = {"float16": 2, "float32": 4}


def make_llava(directory: Path) -> None:
    """A LLaVA-NeXT checkpoint says that it is one of LLaVA-1.5, whose tensors are the same but for a newline too many."""
    make_llava_next(directory)
    for file, kind in (("config.json", {"model_type": "llava"}), ("preprocessor_config.json", {"image_processor_type": CLIP})):
        stated = json.loads((directory / file).read_text()) | kind
        del stated["image_grid_pinpoints"]
        (directory / file).write_text(json.dumps(stated))


def make_llava_next(directory: Path) -> None:
    make_checkpoint(directory, hidden_size=640, dtype=torch.float16)


# Two halves of tens of megabytes, stored in float16.
FAMILIES: dict[str, Callable[[Path], object]] = {
    "llava": make_llava,
    "llava_next": make_llava_next,
    "qwen2_5_vl": partial(make_qwen, scale=20, dtype=torch.float16),
    "video_llava": partial(write_video_llava, scale=20, dtype=torch.float16, shards=3),
}


def test_every_family_is_weighed() -> None:
    assert set(FAMILIES) == set(families())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_more_than_its_half_is_taken(tmp_path: Path, family: str) -> None:
    FAMILIES[family](tmp_path)
    language, vision, largest = parameters(tmp_path)
    # A fixed threshold: else the allocator keeps what was freed of matrices as small as these, and not of a real model's.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, tmp_path], capture_output=True, text=True, check=True, env=environment
    )
    grown = [json.loads(line) for line in child.stdout.splitlines()]
    assert len(grown) == 6
    for half, dtype, taken in grown:
        if half == "packing":
            limit = 1.0 * largest * _BYTES[dtype] + _WORKSPACE_BYTES
            assert limit < vision * _BYTES[dtype] or dtype == "float16", "weights that are there twice would be seen"
            assert taken <= limit, f"packing in {dtype}"
            continue
        own, other = (vision, language) if half == "vision" else (language, vision)
        limit = 1.1 * own * _BYTES[dtype] + _OVERHEAD_BYTES
        assert limit < (own + other) * _BYTES[dtype], "a whole checkpoint in memory would be seen"
        assert taken <= limit, f"{half} in {dtype}"


def parameters(checkpoint: Path) -> tuple[int, int, int]:
    """Of the language half, of everything else, and of the largest tensor of that."""
    tensors = {name: tensor for file in checkpoint.glob("*.safetensors") for name, tensor in load_file(file).items()}
    of_language = ("language_model.", "model.", "lm_head.")
    language = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(of_language))
    vision = [tensor.numel() for name, tensor in tensors.items() if not name.startswith(of_language)]
    return language, sum(vision), max(vision)
