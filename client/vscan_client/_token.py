"""Where a client's bearer token comes from."""

from __future__ import annotations

from pathlib import Path

from vscan.errors import InvalidArgument
from vscan.rpc.bearer import Bearer, TokenFile
from vscan_client.options import TokenLike


def bearer_of(token: TokenLike | None, token_file: Path | None) -> Bearer:
    """What shows who calls, if anything does.

    Raises:
        InvalidArgument: both are given, the file cannot be read, or what is there is no token. No error shows it.
    """
    if token is not None and token_file is not None:
        raise InvalidArgument("token", "given beside token_file: one of the two")
    if token_file is not None:
        return Bearer(TokenFile(Path(token_file), "token_file"), "token_file")
    return Bearer(token)
