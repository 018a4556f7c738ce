"""Training state on disk: tensors as safetensors, the rest as JSON, each file replaced at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage is."""

    step: int = 0  # steps done
    seconds: float = 0.0  # wall-clock time spent on them


def save_state(path: Path, module: nn.Module, optimizers: Sequence[Optimizer], progress: Progress) -> None:
    """Writes `module`, the optimizers' tensors and `progress` under `path` (a name without suffix)."""
    tensors = {f"module.{k}": v.detach().clone() for k, v in module.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{k}": v.clone() for k, v in values.items()}
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    partial.replace(path.with_suffix(".safetensors"))
    partial.write_text(json.dumps(asdict(progress)))
    partial.replace(path.with_suffix(".json"))


def load_module(path: Path, module: nn.Module) -> None:
    """Loads what `save_state` wrote of the module."""
    saved = load_file(path.with_suffix(".safetensors"))
    module.load_state_dict({k.removeprefix("module."): v for k, v in saved.items() if k.startswith("module.")})


def load_state(path: Path, module: nn.Module, optimizers: Sequence[Optimizer]) -> Progress:
    """Loads everything and returns where to go on; the start where nothing was saved."""
    progress = saved_progress(path)
    if progress.step == 0:
        return progress
    load_module(path, module)
    saved = load_file(path.with_suffix(".safetensors"))
    for number, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        whole["state"] = _optimizer_state(saved, f"optimizer.{number}.")
        optimizer.load_state_dict(whole)
    return progress


def saved_progress(path: Path) -> Progress:
    """How far the stage saved under `path` is."""
    note = path.with_suffix(".json")
    return Progress(**json.loads(note.read_text())) if note.exists() else Progress()


def _optimizer_state(saved: dict[str, Tensor], prefix: str) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved.items():
        if name.startswith(prefix):
            index, key = name.removeprefix(prefix).split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
    return state
