"""The page's settings. Frozen, read once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from vscan.config import ServiceSettings
from vscan.errors import StartupError
from vscan.rpc.address import parse_address
from vscan_client import Tls


def _host_and_port(text: str) -> str:
    return str(parse_address(text))


def _split_commas(value: object) -> object:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


Address = Annotated[str, AfterValidator(_host_and_port)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


class PageSettings(ServiceSettings):
    """Everything that can be set, by `VSCAN_PAGE_…` variables or `vscan page --set`."""

    model_config = SettingsConfigDict(env_prefix="VSCAN_PAGE_")

    bind: Address = Field(
        default="127.0.0.1:7080",
        description="Where to listen, `host:port`; port 0 takes any free one. Beyond loopback TLS is needed, and a word on who "
        "may ask (`tls_client_ca_file` or `allow_anonymous`); or `insecure`.",
    )
    decoder_address: Names = Field(
        default=("127.0.0.1:7070",),
        min_length=1,
        description="The decoder, `host:port`; several with commas between, or `dns:///name:port` for all addresses of a name.",
    )
    encoder_address: Names = Field(
        default=(), description="The encoder, so that its state can be shown; questions do not go there. Unset: not shown."
    )
    redis_address: Address | None = Field(
        default=None, description="The Redis of the services, `host:port`, so that its state can be shown. Unset: not shown."
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
    insecure: bool = Field(
        default=False, description="Allow plaintext, and anybody, beyond loopback: for a network that protects itself."
    )
    tls_cert_file: Path | None = Field(default=None, description="PEM file with the page's certificate chain; turns TLS on.")
    tls_key_file: Path | None = Field(default=None, description="PEM file with the certificate's private key.")
    tls_client_ca_file: Path | None = Field(
        default=None, description="PEM file with the CA of the browsers' certificates; those without one are refused (mTLS)."
    )
    allow_anonymous: bool = Field(default=False, description="Beyond loopback: let anybody ask who can open the page.")
    allowed_hosts: Names = Field(
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
    max_question_chars: int = Field(default=4_000, ge=1, description="Longest question, in characters.")
    max_asks: int = Field(default=8, ge=1, description="Questions taken at once; one more is told to wait.")
    upload_seconds: float = Field(
        default=60.0, gt=0, allow_inf_nan=False, description="Longest time for a question to come with its files, in seconds."
    )
    answer_seconds: float = Field(
        default=120.0, gt=0, allow_inf_nan=False, description="Longest time for an answer, in seconds."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="OTLP/gRPC collector for the page's traces, for instance `http://127.0.0.1:4317`. Unset: not sent.",
    )
    ready_file: Path | None = Field(
        default=None, description="File that gets the bound `host:port` once the port is open; useful with port 0."
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("`tls_cert_file` and `tls_key_file` go together")
        if (self.decoder_tls_cert_file is None) != (self.decoder_tls_key_file is None):
            raise ValueError("`decoder_tls_cert_file` and `decoder_tls_key_file` go together")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("`tls_client_ca_file` needs `tls_cert_file` and `tls_key_file`")
        return self

    @property
    def decoder_tls(self) -> Tls | None:
        """How TLS is spoken with the services; `None`: it is not."""
        if self.decoder_tls_ca_file is None and self.decoder_tls_cert_file is None:
            return None
        return Tls(ca_file=self.decoder_tls_ca_file, cert_file=self.decoder_tls_cert_file, key_file=self.decoder_tls_key_file)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return parse_address(self.bind).is_loopback


def check_open(settings: PageSettings) -> None:
    """Raises StartupError where a port beyond loopback would be open to those who listen in, or to anybody."""
    if settings.is_loopback or settings.insecure:
        return
    if settings.tls_cert_file is None:
        raise StartupError(
            f"plaintext on {settings.bind} would be open beyond this machine: "
            "set `tls_cert_file` and `tls_key_file`, or `insecure`"
        )
    if not (settings.tls_client_ca_file or settings.allow_anonymous):
        raise StartupError(f"anybody could ask on {settings.bind}: set `tls_client_ca_file`, or `allow_anonymous`")
