"""Reads a Hugging Face checkpoint directory; loads only the half that a service needs. Only safetensors, never remote code."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
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
# What weights may be stored in, as safetensors names it. Of anything narrower the numbers mean nothing without their scales.
_STORED = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SERVED_WEIGHTS = f"only weights that are not quantised are served, in {', '.join(_STORED.values())}"
# Only the configurations of the LLaVA and Video-LLaVA authors' own code have these.
_ORIGINAL_LAYOUT = ("mm_vision_tower", "mm_image_tower", "mm_video_tower")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint directory and what its config.json states; what else it holds is read where it is needed."""

    directory: Path
    stated: Mapping[str, Any]  # config.json

    @classmethod
    def open(cls, directory: Path | str) -> Checkpoint:
        """Reads config.json.

        Raises:
            CheckpointError: one line that says that it is missing or unreadable, or that the weights are quantised.
        """
        directory = Path(directory)
        _quiet_transformers()
        if not (directory / "config.json").is_file():
            raise CheckpointError(f"{directory}: no config.json; a Hugging Face checkpoint directory is needed")
        try:
            stated = dict(json.loads((directory / "config.json").read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{directory}: config.json cannot be read: {_one_line(error)}") from error
        _refuse_quantised(directory, stated)
        return cls(directory=directory, stated=stated)

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.resolve().name

    @property
    def model_type(self) -> str:
        """`model_type` of config.json, for instance `llava`; empty where it states none."""
        return str(self.stated.get("model_type") or "")

    @cached_property
    def config(self) -> PretrainedConfig:
        """config.json as transformers has it. Raises CheckpointError."""
        try:
            return AutoConfig.from_pretrained(self.directory, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # transformers has many ways to dislike a configuration
            problem = _one_line(error).partition(". ")[0]  # what follows lists all that transformers knows
            raise CheckpointError(f"{self.directory}: config.json cannot be read: {problem}") from error

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """The safetensors file of each tensor, by its name. Raises CheckpointError."""
        return _tensor_files(self.directory)

    def check_family(self, served: Collection[str]) -> None:
        """Raises CheckpointError, which names the `served` families, if config.json is of none of them or cannot be used."""
        families = ", ".join(sorted(served))
        original = self.model_type.startswith("llava_") or any(name in self.stated for name in _ORIGINAL_LAYOUT)
        if original and "vision_config" not in self.stated:
            layout = "the Hugging Face layout is needed, as of llava-hf/llava-1.5-7b-hf or LanguageBind/Video-LLaVA-7B-hf"
            raise CheckpointError(f"{self.directory}: in the layout of the authors' own code; {layout}, of {families}")
        if self.model_type not in served:
            family = f"model family {self.model_type}" if self.model_type else "a config.json without model_type"
            raise CheckpointError(f"{self.directory}: {family} is not served, only {families}")
        try:
            _ = self.config
        except CheckpointError as error:
            raise CheckpointError(f"{error}; served are {families}") from error

    def pair_fingerprint(self) -> bytes:
        """SHA-256 of config.json in canonical form, 32 bytes: what both halves of one checkpoint share."""
        return hashlib.sha256(json.dumps(_identity(self.stated), sort_keys=True).encode()).digest()

    def load_half(
        self,
        model: type[M],
        config: PretrainedConfig,
        *,
        key_mapping: Mapping[str, str],
        dtype: torch.dtype,
        device: torch.device | str,
        attention: str = "sdpa",
        part: str | None = None,
    ) -> M:
        """Loads one half with its own class (`CLIPVisionModel`, `LlamaForCausalLM`, …), in eval mode, without gradients.

        Args:
            model: a transformers class itself; a subclass would count as custom code and skip the mapping.
            config: the half's own configuration.
            key_mapping: regular expressions from the composite checkpoint's keys to the half's.
            attention: name in transformers' attention interface.
            part: what the half is called in messages; its class if not given.

        Raises:
            CheckpointError: a tensor of the half is missing, mis-shaped, quantised or unreadable.
        """
        files = self.files  # first: what transformers would read is checked there
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
        self._refuse_unfit(part or model.__name__, info)
        names = loaded.state_dict()
        self._check_stored(name for name in files if _renamed(name, key_mapping) in names)
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
            CheckpointError: a name that no file holds, a quantised tensor, or a file that cannot be read.
        """
        names = list(names)
        lacking = [name for name in names if name not in self.files]
        if lacking:
            raise CheckpointError(f"{self.directory}: lacks the tensor {lacking[0]}")
        self._check_stored(names)
        tensors = {}
        for name in names:
            try:
                with safe_open(self.files[name], framework="pt") as file:
                    tensors[name] = file.get_tensor(name).to(device=device, dtype=dtype)
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self.directory}: {name} cannot be read: {_one_line(error)}") from error
        return tensors

    def _check_stored(self, names: Iterable[str]) -> None:
        """Raises CheckpointError for a tensor that is not stored in full; only the heads of the files are read."""
        by_file = defaultdict(list)
        for name in names:
            by_file[self.files[name]].append(name)
        for path, held in by_file.items():
            try:
                with safe_open(path, framework="pt") as file:
                    stored = {name: file.get_slice(name).get_dtype() for name in held}
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self.directory}: {path.name} cannot be read: {_one_line(error)}") from error
            for name, dtype in stored.items():
                if dtype not in _STORED:
                    raise CheckpointError(f"{path}: {name} is stored as {dtype}; {_SERVED_WEIGHTS}")


def _refuse_quantised(directory: Path, stated: Mapping[str, Any]) -> None:
    for name, part in {"config.json": stated, **stated}.items():
        if isinstance(part, dict) and part.get("quantization_config") is not None:
            raise CheckpointError(f"{directory}: {name} has a quantization_config; {_SERVED_WEIGHTS}")


def _renamed(name: str, key_mapping: Mapping[str, str]) -> str:
    """As transformers renames it."""
    for pattern, replacement in key_mapping.items():
        name = re.sub(pattern, replacement, name)
    return name


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
