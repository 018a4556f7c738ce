"""What to say where a command needs an extra that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vscan.errors import StartupError

# What comes with the project itself; anything else that is missing belongs to an extra.
_OWN_PACKAGES = {
    "vscan",
    "vscan_client",
    "encoder_service",
    "decoder_service",
    "gateway_service",
    "page_service",
    "embedded_model",
    "studies",
}


class MissingExtra(StartupError):
    """A package that the command needs is not installed."""


@contextmanager
def needs_extra(extra: str, command: str) -> Iterator[None]:
    """Around imports. Raises MissingExtra with the pip command if a package of the extra is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in _OWN_PACKAGES:
            raise
        raise missing_extra(extra, command, error.name or "a package") from error


def missing_extra(extra: str, command: str, module: str) -> MissingExtra:
    """The error that names what is missing and the command that installs it."""
    return MissingExtra(f"{command} needs {module}, of the extra `{extra}`: pip install 'vscan-serve[{extra}]'")
