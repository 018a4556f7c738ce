"""The settings of traces, metrics and logs, shared by both services."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from vscan.rpc.address import parse_address


def _endpoint(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must start with http:// (plaintext) or https:// (TLS)")
    return text


def _host_and_port(text: str) -> str:
    return str(parse_address(text))


class TelemetrySettings(BaseModel):
    """A mixin: name it before `ServiceSettings` among the bases. Alone it is a plain value, which reads no environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    otlp_endpoint: Annotated[str, AfterValidator(_endpoint)] | None = Field(
        default=None,
        description="OTLP/gRPC collector for traces and metrics, for instance `http://127.0.0.1:4317`. Unset: not sent.",
    )
    otlp_ca_file: Path | None = Field(
        default=None,
        description="PEM file with the CA of the collector's certificate, for `https://`, read at start. Unset: the system's.",
    )
    otlp_metrics: bool = Field(default=True, description="Send metrics to `otlp_endpoint` too.")
    trace_console: bool = Field(default=False, description="Print each span on stderr as it ends.")
    trace_sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Fraction of the traces begun here that are recorded, 0 to 1; a caller's own decision is followed.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Log lines as text or as JSON, on stdout.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level that is logged.")
    metrics_bind: Annotated[str, AfterValidator(_host_and_port)] | None = Field(
        default=None,
        description="Where to serve metrics for Prometheus, `host:port`: over TLS where `tls_cert_file` is set, for "
        "clients of `tls_client_ca_file` alone if that is. Beyond loopback TLS or `insecure` is needed. Unset: not served.",
    )

    @model_validator(mode="after")
    def _ca_is_of_use(self) -> Self:
        if self.otlp_ca_file is not None and not (self.otlp_endpoint or "").startswith("https://"):
            raise ValueError("`otlp_ca_file` needs an `otlp_endpoint` that begins with https://")
        return self
