"""`vscan serve encoder|decoder|gateway`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vscan.errors import InvalidArgument
from vscan_client.cli.extras import needs_extra
from vscan_client.cli.secret_arguments import refuse_password_in
from vscan_client.cli.settings_file import read_settings

SettingsOption = Annotated[
    Path | None,
    typer.Option(
        "--settings", metavar="FILE", help="TOML file with the tables [encoder], [decoder], [gateway]; `vscan tune` writes one."
    ),
]


class Service(StrEnum):
    """What can be served."""

    ENCODER = "encoder"
    DECODER = "decoder"
    GATEWAY = "gateway"


def serve(
    ctx: typer.Context,
    service: Annotated[Service, typer.Argument(help="Which one.")],
    model: Annotated[str | None, typer.Option("--model", help="Checkpoint directory. Default: the embedded model.")] = None,
    bind: Annotated[str | None, typer.Option("--bind", help="Where to listen, host:port.")] = None,
    encoder_address: Annotated[str | None, typer.Option("--encoder-address", help="The encoder (decoder only).")] = None,
    decoder_address: Annotated[
        str | None, typer.Option("--decoder-address", help="The decoder, or several (gateway only).")
    ] = None,
    redis_url: Annotated[str | None, typer.Option("--redis-url", help="Redis; empty for none.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("-s", "--set", metavar="NAME=VALUE", help="Any setting, by its name.")
    ] = None,
    settings_file: SettingsOption = None,
) -> None:
    """Run one service in this process. Every setting of docs/configuration.md is an option too: --max-queue 8."""
    named = {
        "model": model,
        "bind": bind,
        "encoder_address": encoder_address,
        "decoder_address": decoder_address,
        "redis_url": redis_url,
        "device": device,
        "dtype": dtype,
    }
    overrides: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    overrides |= dict(options_in(ctx.args)) | dict(map(assignment, settings or ()))
    file = read_settings(settings_file)
    overrides = {**file.of(service.value), **overrides}
    refuse_password_in(overrides.get("redis_url"), "redis_url")
    if settings_file is not None:
        with file.named_in_errors():
            _check(service, overrides)
    raise typer.Exit(run(service, overrides))


def run(service: Service, overrides: dict[str, Any]) -> int:
    """Runs a service to its end and gives its exit code. Raises StartupError where the extra is missing."""
    with needs_extra(_extra(service), f"vscan serve {service}"):
        if service is Service.ENCODER:
            from encoder_service.__main__ import main
        elif service is Service.DECODER:
            from decoder_service.__main__ import main
        else:
            from gateway_service.__main__ import main
    return main(overrides)


def _check(service: Service, overrides: dict[str, Any]) -> None:
    """Raises StartupError where the service does not know a setting, or refuses its value by itself."""
    with needs_extra(_extra(service), f"vscan serve {service}"):
        from vscan.config import ServiceSettings, load_settings

        settings: type[ServiceSettings]
        if service is Service.ENCODER:
            from encoder_service.config import EncoderSettings as settings
        elif service is Service.DECODER:
            from decoder_service.config import DecoderSettings as settings
        else:
            from gateway_service.config import GatewaySettings as settings
    load_settings(settings, overrides)


def _extra(service: Service) -> str:
    return "gateway" if service is Service.GATEWAY else "serve"


def options_in(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--max-queue 8`, `--max-queue=8` and `--insecure` as settings; an option without a value is a switch that is turned on.

    Raises:
        InvalidArgument: something that is no option.
    """
    left = list(arguments)
    while left:
        name = left.pop(0)
        if not name.startswith("--") or name == "--":
            raise InvalidArgument("arguments", f"{name!r} is not an option")
        name, equals, value = name.removeprefix("--").partition("=")
        if not equals:
            value = left.pop(0) if left and not left[0].startswith("--") else "true"
        yield name.replace("-", "_"), value


def assignment(text: str) -> tuple[str, str]:
    """`max_queue=8`, or in the spelling of the options `max-queue=8`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InvalidArgument("-s", f"{text!r} is not of the form NAME=VALUE")
    return name.strip().replace("-", "_").lower(), value
