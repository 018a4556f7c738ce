"""The settings of what listens: of a gRPC server, shared by both services, and what HTTP shares with it (`vscan/http`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vscan.rpc.address import parse_address
from vscan.rpc.tls_files import ServerTls

_LONGEST_DRAIN_SECONDS = 86_400.0  # beyond some number no timer takes it, and the process would end without draining


def _host_and_port(text: str) -> str:
    return str(parse_address(text))


HostAndPort = Annotated[str, AfterValidator(_host_and_port)]

# A service gives its own default: `bind: Bind = "127.0.0.1:7070"`.
Bind = Annotated[
    HostAndPort,
    Field(
        description="Where to listen, `host:port`; port 0 takes any free one. Beyond loopback TLS is needed, and a word on who "
        "may call (`identities_file`, `tls_client_ca_file` or `allow_anonymous`); or `insecure`."
    ),
]


class ListenSettings(BaseModel):
    """A mixin of everything that listens: name it before `ServiceSettings` among the bases. Alone it is a plain value."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    insecure: bool = Field(
        default=False, description="Allow plaintext, and any caller, beyond loopback: for a network that protects itself."
    )
    tls_cert_file: Path | None = Field(default=None, description="PEM file with the server's certificate chain; turns TLS on.")
    tls_key_file: Path | None = Field(default=None, description="PEM file with the certificate's private key.")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM file with the CA of the clients' certificates; clients without one are refused (mTLS)."
    )
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        le=_LONGEST_DRAIN_SECONDS,
        description="How long running calls may go on after SIGTERM before they are cancelled, in seconds.",
    )
    drain_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        le=_LONGEST_DRAIN_SECONDS,
        description="After SIGTERM: how long calls are still taken while the service is no longer ready, so that those who "
        "choose among replicas can see it, in seconds.",
    )
    ready_file: Path | None = Field(
        default=None, description="File that gets the bound `host:port` once the port is open; useful with port 0."
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("`tls_cert_file` and `tls_key_file` go together")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("`tls_client_ca_file` needs `tls_cert_file` and `tls_key_file`")
        return self

    @property
    def server_tls(self) -> ServerTls | None:
        """The files of the server's TLS; None is plaintext."""
        if self.tls_cert_file is None or self.tls_key_file is None:
            return None
        return ServerTls(cert_file=self.tls_cert_file, key_file=self.tls_key_file, client_ca_file=self.tls_client_ca_file)


class RpcSettings(ListenSettings):
    """A mixin: name it before `ServiceSettings` among the bases. Alone it is a plain value, which reads no environment."""

    bind: Bind = "127.0.0.1:0"
    identities_file: Path | None = Field(
        default=None,
        description="TOML file with those who may call, their tenants and limits; see [tenants](tenants.md). Read again when "
        "it changes. Unset: every caller is of the tenant `default`.",
    )
    allow_anonymous: bool = Field(
        default=False, description="Let in callers that show neither a token nor a certificate, as the tenant `default`."
    )
    tenant_requests_per_second: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Calls of one tenant in a second, where `identities_file` says nothing else. Unset: no limit.",
    )
    tenant_burst: int | None = Field(
        default=None,
        ge=1,
        description="Calls of one tenant at once after a pause, before that rate holds. Unset: those of one second.",
    )
    tenant_max_concurrent_calls: int | None = Field(
        default=None,
        ge=1,
        description="Calls of one tenant served at once. Unset: with `identities_file` half of `max_concurrent_calls`, else as "
        "many as there.",
    )
    reflection: bool | None = Field(default=None, description="Serve gRPC reflection. Unset: on loopback only.")
    max_message_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1024, le=2**31 - 1, description="Largest message taken or sent, in bytes."
    )
    max_message_fields: int = Field(
        default=16_384,
        ge=64,
        description="Most fields of one request, those within others included, counted before it is parsed. A chat of 64 "
        "messages with 64 texts each has 8,320.",
    )
    max_request_bytes: int = Field(
        default=1024 * 1024 * 1024,
        ge=1024,
        description="Most bytes of all requests being served at once; one more gets RESOURCE_EXHAUSTED with a retry delay. "
        "At least `max_message_bytes`.",
    )
    max_concurrent_calls: int = Field(
        default=256, ge=1, description="Calls served at once; one more gets RESOURCE_EXHAUSTED with a retry delay."
    )
    client_patience_seconds: float = Field(
        default=120.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest wait for a caller, in seconds: until its whole request has come, and until it has taken a reply, "
        "where so many lie unread that gRPC sends no more. Then its call is ended; one with a reply of more than 1 MiB is with "
        "its connection.",
    )
    health_bind: HostAndPort | None = Field(
        default=None,
        description="A second port for health checks alone, `host:port`, always plaintext: for probes that speak no TLS. "
        "It tells whether a service serves, not why. Unset: not opened.",
    )
    stall_seconds: float = Field(
        default=120.0,
        gt=0,
        allow_inf_nan=False,
        description="A worker that has finished nothing for so long, in seconds, is taken for wedged: the service is neither "
        "ready nor alive. More than the longest step takes.",
    )
    max_connections: int = Field(
        default=512, ge=1, description="Most connections to the port; one more is closed. Each takes a file descriptor."
    )
    max_connection_age_seconds: float = Field(
        default=300.0,
        gt=0,
        description="A connection gets no new calls after so long (10 % more or less), in seconds, so that clients find new "
        "replicas; its running calls end in peace. `inf`: never.",
    )
    max_connection_grace_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="How long after that its last calls may still run, in seconds; then it is closed. Ends what callers have "
        "forgotten. `inf`: they may for ever.",
    )
    max_connection_idle_seconds: float = Field(
        default=600.0, gt=0, description="A connection without a call for so long is closed, in seconds. `inf`: never."
    )

    @model_validator(mode="after")
    def _a_message_has_room(self) -> Self:
        if self.max_request_bytes < self.max_message_bytes:
            raise ValueError("`max_request_bytes` must be at least `max_message_bytes`")
        return self
