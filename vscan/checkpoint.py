"""Reads a Hugging Face checkpoint directory; loads only the half that a service needs. Only safetensors, never remote code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from vscan.errors import CheckpointError

M = TypeVar("M", bound=PreTrainedModel)

# Keys of config.json that say how the files were made, not what the model is.
_NOT_IDENTITY = {"transformers_version", "dtype", "torch_dtype", "_name_or_path"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory, opened: its configuration, and which file holds which tensor. Nothing is loaded yet."""

    directory: Path
    config: PretrainedConfig
    files: Mapping[str, Path]  # tensor name → safetensors file

    @classmethod
    def open(cls, directory: Path | str) -> Checkpoint:
        """Reads config.json and the tensor index.

        Raises:
            CheckpointError: one line that says what is missing or unreadable.
        """
        directory = Path(directory)
        _quiet_transformers()
        if not (directory / "config.json").is_file():
            raise CheckpointError(f"{directory}: no config.json; a Hugging Face checkpoint directory is needed")
        try:
            config = AutoConfig.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{directory}: config.json cannot be read: {_first_line(error)}") from error
        return cls(directory=directory, config=config, files=_tensor_files(directory))

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.resolve().name

    @property
    def model_type(self) -> str:
        """`model_type` of config.json, for instance `llava`."""
        return str(self.config.model_type)

    def pair_fingerprint(self) -> bytes:
        """SHA-256 of config.json in canonical form, 32 bytes: what both halves of one checkpoint share."""
        stated = json.loads((self.directory / "config.json").read_text())
        return hashlib.sha256(json.dumps(_identity(stated), sort_keys=True).encode()).digest()

    def load_half(
        self,
        model: type[M],
        config: PretrainedConfig,
        *,
        key_mapping: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device | str,
        attention: str = "sdpa",
    ) -> M:
        """Loads one half with its own class (`CLIPVisionModel`, `LlamaForCausalLM`, …), in eval mode, without gradients.

        Args:
            model: a transformers class itself; a subclass would count as custom code and skip the mapping.
            config: the half's own configuration.
            key_mapping: regular expressions from the composite checkpoint's keys to the half's.
            attention: name in transformers' attention interface.

        Raises:
            CheckpointError: a tensor of the half is missing, mis-shaped or unreadable.
        """
        try:
            loaded, info = model.from_pretrained(
                self.directory,
                config=config,
                key_mapping=dict(key_mapping),
                dtype=dtype,
                attn_implementation=attention,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise CheckpointError(f"{self.directory}: {model.__name__} cannot be loaded: {_first_line(error)}") from error
        lacking = sorted(info["missing_keys"]) + sorted(str(key) for key in info.get("mismatched_keys", ()))
        if lacking:
            raise CheckpointError(f"{self.directory}: lacks {len(lacking)} tensors of {model.__name__}, first {lacking[0]}")
        half: M = loaded.to(device).eval().requires_grad_(False)
        return half

    def load_tensors(self, names: Iterable[str], *, dtype: torch.dtype, device: torch.device | str) -> dict[str, torch.Tensor]:
        """Single tensors by their names in the files (a projector, `image_newline`).

        Raises:
            CheckpointError: a name that no file holds.
        """
        tensors = {}
        for name in names:
            if name not in self.files:
                raise CheckpointError(f"{self.directory}: lacks the tensor {name}")
            with safe_open(self.files[name], framework="pt") as file:
                tensors[name] = file.get_tensor(name).to(device=device, dtype=dtype)
        return tensors


def _identity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _identity(entry) for key, entry in value.items() if key not in _NOT_IDENTITY}
    return [_identity(entry) for entry in value] if isinstance(value, list) else value


def _tensor_files(directory: Path) -> dict[str, Path]:
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    try:
        if index.is_file():
            weight_map: dict[str, str] = json.loads(index.read_text())["weight_map"]
            missing = sorted({file for file in weight_map.values() if not (directory / file).is_file()})
            if missing:
                raise CheckpointError(f"{directory}: lacks {missing[0]}, named by its index")
            return {name: directory / file for name, file in weight_map.items()}
        if not single.is_file():
            raise CheckpointError(f"{directory}: no model.safetensors and no index; only safetensors are loaded")
        with safe_open(single, framework="pt") as file:
            return dict.fromkeys(file.keys(), single)
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{directory}: its safetensors cannot be read: {_first_line(error)}") from error


def _quiet_transformers() -> None:
    """Each half finds the other's tensors "unexpected": the loading report would be noise. Missing ones are errors here."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
