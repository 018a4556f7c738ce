"""`docs/configuration.md`: every setting of the services, from their classes."""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from pydantic.fields import FieldInfo

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from gateway_service.config import GatewaySettings
from page_service.config import PageSettings
from scripts.pages.markdown import code, generated_from, page, table
from vscan.config import ServiceSettings, variable_name

SERVICES: dict[str, type[ServiceSettings]] = {
    "Encoder": EncoderSettings,
    "Decoder": DecoderSettings,
    "Gateway": GatewaySettings,
    "Page": PageSettings,
}
# A setting's unit is the end of its name.
UNITS = {
    "_ms": "ms",
    "_seconds": "s",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_pixels": "pixels",
    "_chars": "characters",
    "_rows": "rows",
    "_rows_per_step": "rows",
    "_per_tile": "tokens",
    "_ratio": "fraction",
    "_share": "fraction",
    "_average": "fraction",
}
_BOUNDS = {"gt": "over {}", "ge": "at least {}", "lt": "under {}", "le": "at most {}"}


def configuration_page() -> str:
    """The whole page."""
    intro = (
        "Each service reads its settings once, when it starts: from environment variables, and from options of "
        "`vscan serve`, which win. An unknown or a bad value ends it with one line that names the variable. "
        "Settings do not change while it runs."
    )
    file = (
        "`vscan up --settings FILE` and `vscan serve encoder --settings FILE` (or another) also read a TOML file with the "
        "tables `[encoder]`, `[decoder]` and `[gateway]`. Names are those below without `VSCAN_ENCODER_` and so on, in lower "
        "case; a list is one of TOML: `prune_layers = [8, 16]`. Options win over the environment, and the environment over the "
        "file. [`vscan tune`](tuning.md) writes one."
    )
    blocks = [generated_from("the settings' classes"), "# Configuration", intro, file]
    for service, settings in SERVICES.items():
        blocks.append(f"## {service}")
        for group, names in _groups(settings):
            blocks += [f"### {service}: {group}", _settings_table(settings, names)]
    return page(blocks)


def _groups(settings: type[ServiceSettings]) -> Iterator[tuple[str, list[str]]]:
    """The settings under the class that declares them, the service's own first."""
    left = list(settings.model_fields)
    for owner in settings.__mro__:
        mine = [name for name in left if name in inspect.get_annotations(owner)]
        left = [name for name in left if name not in mine]
        if mine:
            yield ("its own" if owner is settings else _group_name(owner)), mine


def _group_name(owner: type) -> str:
    return owner.__name__.removesuffix("Settings").lower()


def _settings_table(settings: type[ServiceSettings], names: list[str]) -> str:
    fields = settings.model_fields
    rows = [
        [code(variable_name(settings, n)), _default(fields[n]), _values(fields[n]), _unit(n), _meaning(fields[n])]
        for n in names
    ]
    return table(["Variable", "Default", "Values", "Unit", "Meaning"], rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == "":
        return "unset"
    if isinstance(value, Enum):
        value = value.value
    return code(value if isinstance(value, str) else json.dumps(value, default=str))


def _values(field: FieldInfo) -> str:
    bounds = [
        words.format(f"{limit:,}" if isinstance(limit, int) else limit)
        for constraint in field.metadata
        for name, words in _BOUNDS.items()
        if (limit := getattr(constraint, name, None)) is not None
    ]
    return ", ".join([_type_name(field.annotation), *bounds])


def _type_name(annotation: object) -> str:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(part) for part in typing.get_args(annotation) if part is not type(None))
    if origin is typing.Literal:
        return " or ".join(code(str(choice)) for choice in typing.get_args(annotation))
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is tuple:
        return f"list of {_type_name(typing.get_args(annotation)[0])}s, commas between"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(code(str(choice.value)) for choice in annotation)
    return {Path: "path", str: "text", bool: "`true` or `false`", int: "integer", float: "number"}.get(annotation, "JSON")  # type: ignore[call-overload,no-any-return]


def _unit(name: str) -> str:
    return next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")


def _meaning(field: FieldInfo) -> str:
    return field.description or ""
