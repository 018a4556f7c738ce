"""Settings: frozen, parsed once, from the environment and the command line. A bad or unknown one stops startup.

A field `redis_url` of a class with the prefix `VSCAN_DECODER_` is the variable `VSCAN_DECODER_REDIS_URL` and the option
`--redis-url`. Errors call it by the one that was used. Texts of errors elsewhere write a field in backticks, or first and
before a colon, and `spell_out` turns that into the same name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BeforeValidator, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from vscan.errors import StartupError

# Kubernetes gives every container variables for each Service of its namespace: VSCAN_ENCODER_PORT, ...
_KUBERNETES_LINK = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?")
_SHOWN_VALUE_CHARS = 80
# A name this like an unknown one is probably what was meant. REDIS and REDIS_URL are .71 alike, MODEL_PATH and MODEL_ALIAS .67.
_LEAST_LIKENESS = 0.7


def _split_commas(value: Any) -> Any:
    return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value


# A list of whole numbers, written `4,8`.
IntList = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split_commas)]
# A list of names or addresses, written `one, another`.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


class ServiceSettings(BaseSettings):
    """Base of a service's settings. A subclass sets `env_prefix`, and gives every field a `description` with its unit.

    A field marked `repr=False` holds a secret: errors do not show its value.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VSCAN_", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: Any) -> Any:
        """An empty variable means None where None is possible: container platforms cannot always leave one out."""
        if not isinstance(values, dict):
            return values
        return {name: None if value == "" and _optional(cls, name) else value for name, value in values.items()}


S = TypeVar("S", bound=ServiceSettings)


def load_settings(settings: type[S], overrides: Mapping[str, Any] | None = None) -> S:
    """Reads the environment, then `overrides` by field name (from the command line; they win, None means not given).

    Raises:
        StartupError: one line that names the variable or the option, for an unknown or a bad value.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    _refuse_unknown(settings, given)
    try:
        return settings(**given)
    except ValidationError as error:
        raise StartupError(_first_problem(settings, given, error)) from error
    except SettingsError as error:  # a value that is no JSON, for a field that takes an object
        match = re.search(r'field "(\w+)"', str(error))
        name = _name(settings, given, match.group(1)) if match else settings.__name__
        raise StartupError(f"{name}: not valid JSON") from error


def variable_name(settings: type[ServiceSettings], field: str) -> str:
    """The environment variable of a field."""
    return f"{settings.model_config['env_prefix']}{field.upper()}"


def option_name(field: str) -> str:
    """The command-line option of a field."""
    return f"--{field.replace('_', '-')}"


def spell_out(message: str, settings: type[ServiceSettings], overrides: Mapping[str, Any] | None = None) -> str:
    """Turns fields in a message into what the reader sets: the option if one was given, else the variable.

    "`tls_cert_file` is missing" → "VSCAN_DECODER_TLS_CERT_FILE is missing";  "redis_url: no host" → "--redis-url: no host"
    """

    def name(match: re.Match[str]) -> str:
        field = match.group(1) or match.group(2)
        return _name(settings, overrides or {}, field) if field in settings.model_fields else match.group(0)

    return re.sub(r"`(\w+)`|^(\w+)(?=: )", name, message)


def _name(settings: type[ServiceSettings], given: Mapping[str, Any], field: str) -> str:
    return option_name(field) if given.get(field) is not None else variable_name(settings, field)


def _first_problem(settings: type[ServiceSettings], given: Mapping[str, Any], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    text = spell_out(problem["msg"].removeprefix("Value error, "), settings, given)
    if not problem["loc"]:  # a check over several fields, which names them itself
        return text
    field = str(problem["loc"][0])
    items = "".join(f"[{item}]" for item in problem["loc"][1:] if isinstance(item, int))
    shown = f" (got {_shown(problem['input'])})" if _may_be_shown(settings, field) else ""
    return f"{_name(settings, given, field)}{items}: {text}{shown}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_VALUE_CHARS else text[: _SHOWN_VALUE_CHARS - 1] + "…"


def _may_be_shown(settings: type[ServiceSettings], field: str) -> bool:
    info: FieldInfo | None = settings.model_fields.get(field)
    return info is None or bool(info.repr)


def _optional(settings: type[ServiceSettings], field: str) -> bool:
    info: FieldInfo | None = settings.model_fields.get(field)
    return info is not None and NoneType in get_args(info.annotation)


def _refuse_unknown(settings: type[ServiceSettings], given: Mapping[str, Any]) -> None:
    for field in given:
        if field not in settings.model_fields:
            raise StartupError(f"{option_name(field)}: no such setting")
    prefix = settings.model_config["env_prefix"]
    known = {variable_name(settings, name) for name in settings.model_fields}
    for variable in sorted(os.environ):
        name = variable.upper()
        if name.startswith(prefix) and name not in known and not _KUBERNETES_LINK.fullmatch(name.removeprefix(prefix)):
            raise StartupError(f"{variable}: no such setting{_nearest(name.removeprefix(prefix), settings)}")


def _nearest(name: str, settings: type[ServiceSettings]) -> str:
    """Compared without the prefix, which would make all names alike."""
    fields = {field.upper(): field for field in sorted(settings.model_fields)}
    close = get_close_matches(name, fields, 1, _LEAST_LIKENESS)
    return f", did you mean {variable_name(settings, fields[close[0]])}?" if close else ""
