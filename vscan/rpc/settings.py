"""The settings of a gRPC server, shared by both services."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vscan.rpc.address import parse_address


def _host_and_port(text: str) -> str:
    return str(parse_address(text))


# A service gives its own default: `bind: Bind = "127.0.0.1:7070"`.
Bind = Annotated[
    str,
    AfterValidator(_host_and_port),
    Field(description="Where to listen, `host:port`; port 0 takes any free one. Beyond loopback TLS or `insecure` is needed."),
]


class RpcSettings(BaseModel):
    """A mixin: name it before `ServiceSettings` among the bases. Alone it is a plain value, which reads no environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    bind: Bind = "127.0.0.1:0"
    insecure: bool = Field(default=False, description="Allow plaintext beyond loopback, for a network that protects itself.")
    tls_cert_file: Path | None = Field(default=None, description="PEM file with the server's certificate chain; turns TLS on.")
    tls_key_file: Path | None = Field(default=None, description="PEM file with the certificate's private key.")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM file with the CA of the clients' certificates; clients without one are refused (mTLS)."
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
    drain_seconds: float = Field(
        default=30.0,
        ge=0,
        allow_inf_nan=False,
        description="How long running calls may go on after SIGTERM before they are cancelled, in seconds.",
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
        if self.max_request_bytes < self.max_message_bytes:
            raise ValueError("`max_request_bytes` must be at least `max_message_bytes`")
        return self
