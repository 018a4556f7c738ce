"""A parity case: what to ask, with which settings, and what must come back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from encoder_service.vision.registry import families
from tests.parity.anyres import stitched_places
from vscan.specs import Budget, KeepRatio, KeepTokens, PruneBudget, Ratio, TokensPerTile


class UnknownCase(Exception):
    """A case that cannot be run: its checkpoint, picture or expectation is missing, or its family is not served."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings that are fixed when the services start: one pair of services for each."""

    checkpoint: Path
    shallow_layer: int
    window: int
    prune_layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One case file and its tensors."""

    name: str
    deployment: Deployment
    picture: Path
    prompt: str
    max_new_tokens: int
    budget: Budget
    prune_budgets: tuple[PruneBudget, ...]
    output_token_ids: tuple[int, ...]
    expected: dict[str, torch.Tensor]
    places: torch.Tensor | None = None  # see `stitched_places`

    @classmethod
    def load(cls, path: Path, checkpoints: Path) -> Case:
        """Reads `path` and the safetensors beside it; the picture lies there or one folder above.

        Raises:
            UnknownCase: one line that says what is missing.
        """
        try:
            return cls._stated(path, json.loads(path.read_text()), checkpoints)
        except (KeyError, json.JSONDecodeError) as error:
            raise UnknownCase(f"{path.name}: not a parity case ({type(error).__name__} {error})") from error

    @classmethod
    def _stated(cls, path: Path, stated: dict[str, Any], checkpoints: Path) -> Case:
        checkpoint = checkpoints / stated["checkpoint"]
        _check_served(path.stem, checkpoint)
        tensors = path.with_suffix(".safetensors")
        if not tensors.is_file():
            raise UnknownCase(f"{path.stem}: {tensors.name} is missing")
        picture = _picture(path, stated["image"])
        return cls(
            name=path.stem,
            deployment=Deployment(checkpoint, stated["shallow_layer"], stated["window"], tuple(stated["prune_layers"])),
            picture=picture,
            prompt=stated["prompt"],
            max_new_tokens=stated["max_new_tokens"],
            budget=_budget(stated),
            prune_budgets=_prune_budgets(stated),
            output_token_ids=tuple(stated["output_token_ids"]),
            expected=load_file(tensors),
            places=stitched_places(checkpoint, picture),
        )


def kind_of(path: Path) -> str:
    """The checkpoint that a case file names."""
    return str(json.loads(path.read_text()).get("checkpoint", ""))


def _check_served(name: str, checkpoint: Path) -> None:
    if not (checkpoint / "config.json").is_file():
        raise UnknownCase(f"{name}: no checkpoint {checkpoint}")
    model_type = json.loads((checkpoint / "config.json").read_text())["model_type"]
    if model_type not in families():
        raise UnknownCase(f"{name}: the family {model_type} is not served")


def _picture(path: Path, name: str) -> Path:
    for folder in (path.parent, path.parent.parent):
        if (folder / name).is_file():
            return folder / name
    raise UnknownCase(f"{path.stem}: no picture {name} beside the case or one folder above")


def _budget(stated: dict[str, Any]) -> Budget:
    if "keep_ratio" in stated:
        return Ratio(stated["keep_ratio"])
    return TokensPerTile(stated["visual_tokens_per_tile"])


def _prune_budgets(stated: dict[str, Any]) -> tuple[PruneBudget, ...]:
    if "prune_keep_ratio" in stated:
        return tuple(KeepRatio(ratio) for ratio in stated["prune_keep_ratio"])
    return tuple(KeepTokens(count) for count in stated["prune_keep"])
