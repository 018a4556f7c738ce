"""The gateway's settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from vscan.config import Names, ServiceSettings
from vscan.http.host_names import HostNames, KnownHosts
from vscan.http.settings import HttpSettings
from vscan.rpc.settings import HostAndPort
from vscan.telemetry.settings import TelemetrySettings

Servers = Annotated[Names, Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Share:
    """What one caller may take of a gateway: requests at once, and bytes of their bodies."""

    requests: int
    body_bytes: int


class GatewaySettings(HttpSettings, TelemetrySettings, ServiceSettings):
    """Everything that a gateway can be told; the environment names are these with `VSCAN_GATEWAY_` before them."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VSCAN_GATEWAY_", validate_default=True)

    bind: HostAndPort = Field(
        default="127.0.0.1:8000",
        description="Where to listen, `host:port`; port 0 takes any free one. Beyond loopback TLS is needed, and a word on who "
        "may call (`require_token`, `tls_client_ca_file` or `allow_anonymous`); or `insecure`.",
    )
    decoder_address: Servers = Field(
        default=("127.0.0.1:7070",),
        description="The decoder: `host:port`, several with commas between, or `dns:///name:port` for all addresses of a name.",
    )
    decoder_tls: bool = Field(default=False, description="Speak TLS with the decoder.")
    decoder_tls_ca_file: Path | None = Field(
        default=None, description="PEM file with the CAs of the decoder's certificate. Unset: those that gRPC brings."
    )
    decoder_tls_cert_file: Path | None = Field(default=None, description="PEM file with this gateway's own certificate (mTLS).")
    decoder_tls_key_file: Path | None = Field(default=None, description="PEM file with the key of that certificate.")
    decoder_token_file: Path | None = Field(
        default=None,
        description="File with the bearer token of callers that show none, and of the gateway's own look at the decoder. Read "
        "again when it changes.",
    )
    decoder_insecure: bool = Field(default=False, description="Allow plaintext to a decoder beyond loopback.")
    answer_timeout_seconds: float = Field(
        default=600.0, gt=0, allow_inf_nan=False, description="Longest time for one answer, in seconds."
    )
    describe_seconds: float = Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long the decoder's word on its model is remembered, in seconds.",
    )

    require_token: bool = Field(
        default=False,
        description="Refuse callers that show no bearer token. The decoder judges it, and must: one that lets in any is "
        "not asked.",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Beyond loopback: pass on the questions of callers that show nothing; the decoder judges them.",
    )
    allowed_hosts: HostNames = Field(
        default=(),
        description="Names besides `localhost` and its addresses that `Host` and `Origin` may have, for a proxy on the same "
        "machine; commas between. Beyond loopback any name will do, unless some stand here.",
    )

    max_body_bytes: int = Field(default=64 * 1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    max_bodies_bytes: int = Field(
        default=1024 * 1024 * 1024,
        ge=1024,
        description="Most bytes of all bodies that are held at once; one more gets 429. At least `max_body_bytes`.",
    )
    max_json_values: int = Field(
        default=250_000,
        ge=1024,
        description="Most values in a request's JSON; commas and opening brackets are counted, those in texts too.",
    )
    max_json_depth: int = Field(default=64, ge=8, le=200, description="Deepest nesting of a request's JSON.")
    max_concurrent_requests: int = Field(default=256, ge=1, description="Requests served at once; one more gets 429.")
    max_caller_requests: int | None = Field(
        default=None,
        ge=1,
        description="Requests of one token served at once; those without a token count as one caller. Unset: with "
        "`require_token` half of `max_concurrent_requests`, else as many as there.",
    )
    max_callers: int = Field(
        default=1024, ge=1, description="Callers, each with a token, of whom is remembered which images they have sent."
    )

    @property
    def share(self) -> Share:
        """What one caller may take: half of everything where tokens tell callers apart, so that none keeps all others out."""
        requests, body_bytes = self.max_concurrent_requests, self.max_bodies_bytes
        if self.require_token:
            requests, body_bytes = max(1, requests // 2), max(self.max_body_bytes, body_bytes // 2)
        return Share(self.max_caller_requests or requests, body_bytes)

    @property
    def hosts(self) -> KnownHosts | None:
        """The names by which it may be called; None for any."""
        return KnownHosts(self.allowed_hosts) if self.is_loopback or self.allowed_hosts else None
