"""Settings: frozen, parsed once, from the environment and the command line. A bad or unknown one stops startup."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from vscan.errors import StartupError


class ServiceSettings(BaseSettings):
    """Base of a service's settings. A subclass sets `env_prefix`, and gives every field a `description` with its unit."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VSCAN_", validate_default=True)


S = TypeVar("S", bound=ServiceSettings)


def load_settings(settings: type[S], overrides: Mapping[str, Any] | None = None) -> S:
    """Reads the environment, then `overrides` (from the command line; they win).

    Raises:
        StartupError: one line that names the variable, for an unknown or a bad value.
    """
    prefix = settings.model_config["env_prefix"]
    _refuse_unknown(settings, prefix)
    try:
        return settings(**dict(overrides or {}))
    except ValidationError as error:
        first = error.errors()[0]
        name = prefix + "_".join(str(part) for part in first["loc"]).upper()
        raise StartupError(f"{name.rstrip('_')}: {first['msg']} (got {first['input']!r})") from error


def _refuse_unknown(settings: type[ServiceSettings], prefix: str) -> None:
    known = {prefix + name.upper() for name in settings.model_fields}
    for variable in sorted(os.environ):
        if variable.upper().startswith(prefix) and variable.upper() not in known:
            raise StartupError(f"{variable}: no such setting")
