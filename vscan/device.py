"""Where a half of a model runs, and in which element type."""

from __future__ import annotations

import torch

from vscan.errors import StartupError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first CUDA device if there is one, else the CPU.

    Raises:
        StartupError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises AssertionError where it was built without CUDA
        raise StartupError(f"device: {name} cannot be used here") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The element type of that name (a key of `DTYPES`); "auto" is bfloat16 on CUDA, float32 elsewhere."""
    if name == "auto":
        name = "bfloat16" if device.type == "cuda" else "float32"
    return DTYPES[name]


def check_compiles(device: torch.device) -> None:
    """Raises StartupError where layers are not compiled."""
    if device.type != "cuda":
        raise StartupError("compile: on a GPU only; on a CPU linear layers are packed instead")
