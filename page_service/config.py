"""The page's settings. Frozen, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from vscan.config import Names, ServiceSettings
from vscan.http.host_names import HostNames
from vscan.http.settings import HttpSettings
from vscan.rpc.settings import HostAndPort
from vscan_client import Tls


class PageSettings(HttpSettings, ServiceSettings):
    """Everything that can be set, by `VSCAN_PAGE_…` variables or `vscan page --set`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VSCAN_PAGE_", validate_default=True)

    bind: HostAndPort = Field(
        default="127.0.0.1:7080",
        description="Where to listen, `host:port`; port 0 takes any free one. Beyond loopback TLS is needed, and a word on who "
        "may ask (`tls_client_ca_file` or `allow_anonymous`); or `insecure`.",
    )
    decoder_address: Annotated[Names, Field(min_length=1)] = Field(
        default=("127.0.0.1:7070",),
        description="The decoder, `host:port`; several with commas between, or `dns:///name:port` for all addresses of a name.",
    )
    encoder_address: Names = Field(
        default=(), description="The encoder, so that its state can be shown; questions do not go there. Unset: not shown."
    )
    redis_address: HostAndPort | None = Field(
        default=None,
        description="The Redis of the services, `host:port` in plaintext, so that its state can be shown. Unset: not shown.",
    )
    decoder_tls_ca_file: Path | None = Field(
        default=None, description="PEM file with the CA of the services' certificates. Set, TLS is spoken with them."
    )
    decoder_tls_cert_file: Path | None = Field(
        default=None, description="PEM file with the page's own certificate for the services (mTLS); turns TLS on as well."
    )
    decoder_tls_key_file: Path | None = Field(default=None, description="PEM file with the key of that certificate.")
    decoder_token_file: Path | None = Field(
        default=None,
        description="File with the bearer token that the page shows the services: whoever can open the page asks by it. Read "
        "again when it changes.",
    )
    decoder_insecure: bool = Field(default=False, description="Allow plaintext to services beyond loopback.")
    allow_anonymous: bool = Field(default=False, description="Beyond loopback: let anybody ask who can open the page.")
    allowed_hosts: HostNames = Field(
        default=(),
        description="Names, besides those of loopback and the host of `bind`, by which browsers may call the page; commas "
        "between. Others are refused, so that no other site can have its own name point here.",
    )
    max_files: int = Field(default=8, ge=1, description="Most images and videos of one question.")
    max_upload_bytes: int = Field(
        default=48 * 1024 * 1024,
        ge=1024,
        description="Most bytes of one question with its files. Held in memory, never on disk.",
    )
    max_uploads_bytes: int = Field(
        default=192 * 1024 * 1024,
        ge=1024,
        description="Most bytes of all questions that are held at once, each until its answer has ended; one more is told to "
        "wait. At least `max_upload_bytes`.",
    )
    max_question_chars: int = Field(default=4_000, ge=1, description="Longest question, in characters.")
    max_asks: int = Field(default=8, ge=1, description="Questions taken at once; one more is told to wait.")
    answer_seconds: float = Field(
        default=120.0, gt=0, allow_inf_nan=False, description="Longest time for an answer, in seconds."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="OTLP/gRPC collector for the page's traces, for instance `http://127.0.0.1:4317`. Unset: not sent.",
    )

    @model_validator(mode="after")
    def _a_question_has_room(self) -> Self:
        if self.max_uploads_bytes < self.max_upload_bytes:
            raise ValueError("`max_uploads_bytes` must be at least `max_upload_bytes`")
        return self

    @model_validator(mode="after")
    def _the_decoder_certificate_is_whole(self) -> Self:
        if (self.decoder_tls_cert_file is None) != (self.decoder_tls_key_file is None):
            raise ValueError("`decoder_tls_cert_file` and `decoder_tls_key_file` go together")
        return self

    @property
    def decoder_tls(self) -> Tls | None:
        """How TLS is spoken with the services; `None`: it is not."""
        if self.decoder_tls_ca_file is None and self.decoder_tls_cert_file is None:
            return None
        return Tls(ca_file=self.decoder_tls_ca_file, cert_file=self.decoder_tls_cert_file, key_file=self.decoder_tls_key_file)
