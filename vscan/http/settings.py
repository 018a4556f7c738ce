"""The settings of what listens for HTTP, and the check that it is not open by mistake."""

from __future__ import annotations

from pydantic import Field

from vscan.errors import StartupError
from vscan.rpc.address import parse_address
from vscan.rpc.settings import HostAndPort, ListenSettings


class HttpSettings(ListenSettings):
    """A mixin: name it before `ServiceSettings` among the bases. A service gives `bind` its own default and description."""

    bind: HostAndPort = "127.0.0.1:0"
    max_connections: int = Field(
        default=512,
        ge=1,
        description="Most connections to the port, those at their TLS handshake too; one more is closed.",
    )
    header_timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest wait for a TLS handshake, the whole head of a request, and the rest of a body that is "
        "refused, in seconds.",
    )
    idle_timeout_seconds: int = Field(
        default=75, ge=1, description="A connection without a request for so long is closed, in seconds."
    )
    client_patience_seconds: float = Field(
        default=120.0,
        gt=0,
        allow_inf_nan=False,
        description="Longest wait for a caller, in seconds: until its whole body has come, and until it takes more of an "
        "answer.",
    )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return parse_address(self.bind).is_loopback

    def check_open(self, *, is_guarded: bool, guards: str) -> None:
        """That a port beyond loopback is open neither to those who listen in nor to anybody.

        Args:
            is_guarded: something says who may come in, or that anybody may.
            guards: what would, for the error.

        Raises:
            StartupError: it is.
        """
        if self.is_loopback or self.insecure:
            return
        if self.server_tls is None:
            raise StartupError(
                f"plaintext on {self.bind} would be open beyond this machine: "
                "set `tls_cert_file` and `tls_key_file`, or `insecure`"
            )
        if not is_guarded:
            raise StartupError(f"anybody could call {self.bind}: set {guards}")
