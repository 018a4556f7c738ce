"""What can be refused before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from vscan.errors import StartupError
from vscan.rpc.address import parse_address
from vscan_client.cli.extras import missing_extra

_NEEDED = ("torch", "transformers", "redis", "pydantic_settings", "grpc_health")  # of the extra `serve`


def check_local(model: Path | None, binds: Mapping[str, str]) -> None:
    """Refuses what would else come out after a model was loaded: by each service's name, where it is to listen.

    Raises:
        StartupError: one line that says which, and why.
    """
    for module in _NEEDED:
        if find_spec(module) is None:
            raise missing_extra("serve", "serving here", module)
    if model is not None and not model.is_dir():
        raise StartupError(f"model: {model} is not a directory")
    if model is not None and not (model / "config.json").is_file():
        raise StartupError(f"model: {model} has no config.json: not a Hugging Face checkpoint")
    for name, bind in binds.items():
        _check_bind(name, bind)


def _check_bind(name: str, bind: str) -> None:
    from vscan.rpc.listening import check_free

    try:
        check_free(parse_address(bind))
    except ValueError as error:
        raise StartupError(f"{name}: {bind!r} is {error}") from error
    except StartupError as error:
        raise StartupError(f"{name}: {error}") from error
