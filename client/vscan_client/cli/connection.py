"""Options that every command with a server shares, and the client that they make."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from vscan.errors import InvalidArgument
from vscan.telemetry.providers import Telemetry
from vscan_client.cli.extras import needs_extra
from vscan_client.options import Retry, Timeout, Tls

_SEVERAL = "; several with commas, or dns:///NAME:PORT for all of a name's."
ServerOption = Annotated[str, typer.Option("--server", envvar="VSCAN_SERVER", help=f"The decoder's address{_SEVERAL}")]
EncoderOption = Annotated[
    str | None, typer.Option("--encoder", envvar="VSCAN_ENCODER", help=f"The encoder's address{_SEVERAL}")
]
ThatEncoderOption = Annotated[str, typer.Option("--encoder", envvar="VSCAN_ENCODER", help=f"The encoder's address{_SEVERAL}")]
TlsCaOption = Annotated[
    Path | None, typer.Option("--tls-ca", help="Encrypt; trust servers whose certificate this PEM file signs.")
]
TlsCertOption = Annotated[
    Path | None, typer.Option("--tls-cert", help="Encrypt; show servers this certificate (PEM) as your own, with --tls-key.")
]
TlsKeyOption = Annotated[Path | None, typer.Option("--tls-key", help="The key (PEM) of that certificate.")]
InsecureOption = Annotated[bool, typer.Option("--insecure", help="Allow plaintext to another machine.")]
TokenFileOption = Annotated[
    Path | None,
    typer.Option("--token-file", envvar="VSCAN_TOKEN_FILE", help="File with the bearer token that shows who you are."),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait for one answer, retries included.", min=0.001)]
ConsoleOption = Annotated[bool, typer.Option("--trace-console", help="Print each span on stderr as it ends.")]
OtlpOption = Annotated[
    str | None,
    typer.Option("--otlp-endpoint", help="Send traces to this OTLP/gRPC collector, for instance http://127.0.0.1:4317."),
]
DEFAULT_SERVER = "127.0.0.1:7070"
DEFAULT_ENCODER = "127.0.0.1:7071"
DEFAULT_TIMEOUT_S = 120.0
# Somebody waits at the prompt, and a new process has a new channel, which does not pause before it connects.
_RETRY = Retry(attempts=4)


def patient_retry(concurrency: int) -> Retry:
    """Of a batch, which is better late than with holes where it meets a full queue."""
    return Retry(attempts=10, backoff_ms=200, max_backoff_ms=10_000, budget=10 * concurrency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where the server is, and how to talk to it."""

    server: str = DEFAULT_SERVER
    encoder: str | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    insecure: bool = False
    token_file: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    trace_console: bool = False
    otlp_endpoint: str | None = None

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            given, missing = ("--tls-cert", "--tls-key") if self.tls_key is None else ("--tls-key", "--tls-cert")
            raise InvalidArgument(missing, f"missing beside {given}")

    def client_arguments(self, telemetry: Telemetry | None, retry: Retry | None = None) -> dict[str, Any]:
        """Keywords of both clients' constructors."""
        return {
            "server": _addresses(self.server),
            "encoder": None if self.encoder is None else _addresses(self.encoder),
            "tls": self._tls(),
            "insecure": self.insecure,
            "token_file": self.token_file,
            "timeout": Timeout(total=self.timeout_s),
            "retry": retry or _RETRY,
            "tracer_provider": telemetry.tracer_provider if telemetry else None,
        }

    def _tls(self) -> Tls | None:
        if self.tls_ca is None and self.tls_cert is None:
            return None
        return Tls(ca_file=self.tls_ca, cert_file=self.tls_cert, key_file=self.tls_key)

    @contextmanager
    def telemetry(self) -> Iterator[Telemetry | None]:
        """Where the spans go, as the options say; sends what is left at the end. Raises StartupError without the extra."""
        if not self.trace_console and self.otlp_endpoint is None:
            yield None
            return
        with needs_extra("otel", "tracing"):
            from vscan.telemetry.setup import setup_tracing
        telemetry = setup_tracing("vscan-client", otlp_endpoint=self.otlp_endpoint, console=self.trace_console)
        try:
            yield telemetry
        finally:
            telemetry.shutdown()


def _addresses(text: str) -> list[str]:
    """What stands between commas; in gRPC's `ipv4:` and `ipv6:` they are its own."""
    return [text] if text.startswith(("ipv4:", "ipv6:")) else [each.strip() for each in text.split(",")]
