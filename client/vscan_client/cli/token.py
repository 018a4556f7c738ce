"""`vscan token FILE`."""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from vscan.errors import InvalidArgument

_TOKEN_BYTES = 32


def token(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the token goes; only its owner may read it.")],
) -> None:
    """Make a bearer token: writes it to a new file, and prints the line for the server's identities file."""
    made = secrets.token_urlsafe(_TOKEN_BYTES)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            os.fchmod(descriptor, 0o600)  # whatever the umask says
            out.write(f"{made}\n")
    except OSError as error:
        raise InvalidArgument("FILE", f"{file}: {error.strerror}") from error
    print(f'token_sha256 = "{sha256(made.encode()).hexdigest()}"')
