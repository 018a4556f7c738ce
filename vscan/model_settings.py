"""The settings that say which model a service serves, and on what. Shared by both services."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSettings(BaseModel):
    """A mixin: name it before `ServiceSettings` among the bases."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    model: Path | None = Field(
        default=None, description="Hugging Face checkpoint directory, safetensors only. Unset: the embedded model."
    )
    model_alias: str | None = Field(
        default=None, min_length=1, max_length=128, description="Name to tell callers. Unset: the directory's name."
    )
    device: str = Field(default="auto", description="`auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:N`.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Element type of weights and tokens. `auto`: bfloat16 on CUDA, float32 on a CPU."
    )
    torch_threads: int | None = Field(
        default=None, ge=1, le=1024, description="Threads of one CPU operation. Unset: as many as there are cores."
    )
    compile: bool = Field(
        default=False,
        description="Whether the model's layers are compiled (`torch.compile`) while the service starts, which takes "
        "seconds to minutes more. On a GPU only; on a CPU linear layers are packed for oneDNN instead.",
    )
