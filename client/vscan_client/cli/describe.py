"""`vscan describe`."""

from __future__ import annotations

import json

from vscan_client.cli import connection as shared


def describe(
    server: shared.ServerOption = shared.DEFAULT_SERVER,
    encoder: shared.EncoderOption = None,
    tls_ca: shared.TlsCaOption = None,
    tls_cert: shared.TlsCertOption = None,
    tls_key: shared.TlsKeyOption = None,
    insecure: shared.InsecureOption = False,
    token_file: shared.TokenFileOption = None,
    timeout: shared.TimeoutOption = shared.DEFAULT_TIMEOUT_S,
) -> None:
    """Print what a deployment serves, its limits and its defaults, as JSON. With --encoder the encoder's too."""
    from vscan_client import Client

    connection = shared.Connection(
        server=server,
        encoder=encoder,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        insecure=insecure,
        token_file=token_file,
        timeout_s=timeout,
    )
    with Client(**connection.client_arguments(None)) as client:
        print(json.dumps(client.describe().to_dict(), indent=2, ensure_ascii=False))
