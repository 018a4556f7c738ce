"""Bearer tokens on the caller's side, for the decoder and the SDK: where one comes from, how it is sent. Base install only."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from vscan.errors import InvalidArgument
from vscan.watched_file import WatchedFile

MAX_TOKEN_CHARS = 4096
_MAX_FILE_BYTES = 2 * MAX_TOKEN_CHARS
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)  # RFC 6750, section 2.1

Metadata = tuple[tuple[str, str], ...]


def is_token(text: str) -> bool:
    """Whether a text has the form of a bearer token (RFC 6750)."""
    return len(text) <= MAX_TOKEN_CHARS and _TOKEN.fullmatch(text) is not None


class TokenFile:
    """The token in a file, a newline at its end ignored; read again when the file changes. Shows no token in its `repr`.

    Args:
        path: the file.
        field: what errors call it.

    Raises:
        InvalidArgument: the file cannot be read, or holds no token.
    """

    def __init__(self, path: Path, field: str) -> None:
        self._file = WatchedFile(path, max_bytes=_MAX_FILE_BYTES)
        self._field = field
        self._token = ""
        self()

    def __call__(self) -> str:
        """The token now. Where a new version cannot be read or holds none, the last one: the server judges it."""
        try:
            content = self._file.read_if_changed()
            if content is not None:
                self._token = _checked(content.rstrip(b"\r\n").decode("ascii", "replace"), self._field)
        except (OSError, InvalidArgument) as error:
            if not self._token:
                problem = error.problem if isinstance(error, InvalidArgument) else f"cannot be read: {error.strerror}"
                raise InvalidArgument(self._field, f"{self._file.path} {problem}") from None
        return self._token

    def __repr__(self) -> str:
        return f"TokenFile({str(self._file.path)!r})"


class Bearer:
    """Makes the metadata that shows a token. Shows none itself.

    Args:
        source: the token, or what gives it at each call; None sends nothing.
        field: what errors call it.
    """

    def __init__(self, source: str | Callable[[], str] | None, field: str = "token") -> None:
        self._field = field
        self._source = _checked(source, field) if isinstance(source, str) else source

    def metadata(self) -> Metadata:
        """Of one call. Raises InvalidArgument where the source gives no token."""
        if self._source is None:
            return ()
        token = self._source if isinstance(self._source, str) else _checked(self._source(), self._field)
        return (("authorization", f"Bearer {token}"),)

    def __repr__(self) -> str:
        return "Bearer(none)" if self._source is None else "Bearer(…)"


def _checked(token: str, field: str) -> str:
    if not isinstance(token, str) or not is_token(token):
        raise InvalidArgument(field, "holds no bearer token: letters, digits and '-._~+/', with '=' at the end alone")
    return token
