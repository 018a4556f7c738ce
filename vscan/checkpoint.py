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
        except Exception as error:  # transformers has many ways to dislike a configuration
            raise CheckpointError(f"{directory}: config.json cannot be read: {_one_line(error)}") from error
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
        stated = json.loads((self.directory / "config.json").read_bytes())
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
                ignore_mismatched_sizes=True,  # they are reported, and refused below by name
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except Exception as error:  # and as many to dislike a file
            raise CheckpointError(f"{self.directory}: {model.__name__} cannot be loaded: {_one_line(error)}") from error
        self._refuse_unfit(model.__name__, info)
        half: M = loaded.to(device).eval().requires_grad_(False)
        return half

    def _refuse_unfit(self, name: str, info: Mapping[str, Any]) -> None:
        """What transformers would initialise at random instead."""
        lacking = sorted(info["missing_keys"])
        if lacking:
            raise CheckpointError(f"{self.directory}: lacks {len(lacking)} tensors of {name}, first {lacking[0]}")
        mismatched = sorted(info["mismatched_keys"])
        if mismatched:
            key, found, needed = mismatched[0]
            raise CheckpointError(f"{self.directory}: {key} is {list(found)} where {name} needs {list(needed)}")

    def load_tensors(self, names: Iterable[str], *, dtype: torch.dtype, device: torch.device | str) -> dict[str, torch.Tensor]:
        """Single tensors by their names in the files (a projector, `image_newline`).

        Raises:
            CheckpointError: a name that no file holds, or a file that cannot be read.
        """
        tensors = {}
        for name in names:
            if name not in self.files:
                raise CheckpointError(f"{self.directory}: lacks the tensor {name}")
            try:
                with safe_open(self.files[name], framework="pt") as file:
                    tensors[name] = file.get_tensor(name).to(device=device, dtype=dtype)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self.directory}: {name} cannot be read: {_one_line(error)}") from error
        return tensors


def _identity(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _identity(entry) for key, entry in value.items() if key not in _NOT_IDENTITY}
    return [_identity(entry) for entry in value] if isinstance(value, list) else value


def _tensor_files(directory: Path) -> dict[str, Path]:
    index = directory / "model.safetensors.index.json"
    single = directory / "model.safetensors"
    if index.is_file():
        return _indexed_files(index)
    if not single.is_file():
        raise CheckpointError(f"{directory}: no model.safetensors and no index; only safetensors are loaded")
    try:
        with safe_open(single, framework="pt") as file:
            return dict.fromkeys(file.keys(), single)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{directory}: its safetensors cannot be read: {_one_line(error)}") from error


def _indexed_files(index: Path) -> dict[str, Path]:
    directory = index.parent
    try:
        weight_map: dict[str, str] = dict(json.loads(index.read_bytes())["weight_map"])
        names = sorted(set(weight_map.values()))
        # A shard is a file beside its index: a name with a folder in it would lead elsewhere.
        foreign = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{directory}: {index.name} cannot be read: {_one_line(error)}") from error
    if foreign:
        raise CheckpointError(f"{directory}: its index names {foreign[0]!r}; only safetensors beside it are loaded")
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
        raise CheckpointError(f"{directory}: lacks {missing[0]}, named by its index")
    return {tensor: directory / name for tensor, name in weight_map.items()}


def _quiet_transformers() -> None:
    """Each half finds the other's tensors "unexpected": the loading report would be noise. Missing ones are errors here."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def _one_line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
