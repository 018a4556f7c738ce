"""Settings of the services in one file, for `vscan up --settings` and `vscan serve … --settings`.

    [encoder]
    reduction_target_average = 0.111
    [decoder]
    prune_layers = [8, 16]
    [gateway]
    max_concurrent_requests = 64

TOML. The names are those of docs/configuration.md without `VSCAN_ENCODER_` and so on, in lower case. `vscan tune` writes one.
Options of the command win over the environment, and the environment over the file.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vscan.errors import InvalidArgument, StartupError

OPTION = "--settings"
_SERVICES = ("encoder", "decoder", "gateway")


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file says, by service and name, as texts: the form that environment variables have."""

    path: Path
    by_service: dict[str, dict[str, str]]

    def of(self, service: str, environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """A service's settings that the environment does not set."""
        there = {name.upper() for name in (os.environ if environment is None else environment)}
        prefix = f"VSCAN_{service.upper()}_"
        return {name: text for name, text in self.by_service[service].items() if prefix + name.upper() not in there}

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Where a service refuses a setting of this file, the error says so.

        Raises:
            StartupError: that of the service, with the file's name behind it.
        """
        try:
            yield
        except StartupError as error:
            if not self._is_ours(str(error)):
                raise
            raise StartupError(f"{error} (set in {self.path})") from error

    def _is_ours(self, message: str) -> bool:
        for service, settings in self.by_service.items():
            for name in settings:
                spelled = (f"VSCAN_{service.upper()}_{name.upper()}", f"--{name.replace('_', '-')}")
                if any(re.search(rf"(?<![\w-]){re.escape(each)}(?![\w-])", message) for each in spelled):
                    return True
        return False


def read_settings(path: Path | None) -> SettingsFile:
    """Reads a file; none has no settings. Whether a service knows them is the service's to say, when it starts.

    Raises:
        InvalidArgument: it cannot be read, is not TOML, or has something else than tables of settings for the services.
    """
    if path is None:
        return SettingsFile(Path(), {service: {} for service in _SERVICES})
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(OPTION, f"{path}: {error.strerror}") from error
    except ValueError as error:  # no UTF-8, no TOML
        raise InvalidArgument(OPTION, f"{path}: {error}") from error
    for name, value in told.items():
        if name not in _SERVICES or not isinstance(value, dict):
            raise InvalidArgument(OPTION, f"{path}: {name!r}", limit="the tables [encoder], [decoder] and [gateway]")
    return SettingsFile(path, {service: dict(_texts(path, service, told.get(service, {}))) for service in _SERVICES})


def _texts(path: Path, service: str, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise InvalidArgument(OPTION, f"{path}: [{service}] {name!r} is not the name of a setting, such as `max_queue`")
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, bool | int | float | str) for item in items) or (isinstance(value, list) and not value):
            raise InvalidArgument(
                OPTION, f"{path}: [{service}] {name}", limit="a text, a number, true or false, or a list of them"
            )
        yield name, ",".join(map(_text, items))


def _text(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
