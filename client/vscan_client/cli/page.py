"""`vscan page`."""

from __future__ import annotations

from typing import Annotated

import typer

from vscan_client.cli import connection as shared
from vscan_client.cli.extras import needs_extra
from vscan_client.cli.serve import assignment


def page(
    bind: Annotated[str | None, typer.Option("--bind", help="Where to listen, host:port. Default: 127.0.0.1:7080.")] = None,
    server: Annotated[
        str | None,
        typer.Option("--server", envvar="VSCAN_SERVER", help=f"The decoder's address. Default: {shared.DEFAULT_SERVER}."),
    ] = None,
    encoder: shared.EncoderOption = None,
    tls_ca: shared.TlsCaOption = None,
    tls_cert: shared.TlsCertOption = None,
    tls_key: shared.TlsKeyOption = None,
    token_file: shared.TokenFileOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("-s", "--set", metavar="NAME=VALUE", help="Any setting of docs/configuration.md, by its name."),
    ] = None,
    otlp_endpoint: shared.OtlpOption = None,
) -> None:
    """Serve a page for a browser: ask about images and videos, and see which of their patches the model was shown."""
    with needs_extra("page", "vscan page"):
        from page_service.__main__ import main
    named = {
        "bind": bind,
        "decoder_address": server,
        "encoder_address": encoder,
        "decoder_tls_ca_file": tls_ca,
        "decoder_tls_cert_file": tls_cert,
        "decoder_tls_key_file": tls_key,
        "decoder_token_file": token_file,
        "otlp_endpoint": otlp_endpoint,
    }
    raise typer.Exit(main(named | dict(map(assignment, settings or ()))))
