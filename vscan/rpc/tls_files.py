"""TLS files that are replaced while they are in use: certificates expire, and who renews them restarts nobody.

A rotation writes certificate and key one after the other, or swaps the symbolic link of a folder (Kubernetes). So files are
known by their stamps, and new ones are taken only when all can be read and fit each other; until then the old ones stay.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Generic, NoReturn, TypeVar

from vscan.errors import StartupError

T = TypeVar("T")
# Of each file: when it was written, which one it is, its bytes. None where there is none.
Stamps = tuple[tuple[int, int, int] | None, ...]

_log = logging.getLogger(__name__)


class Rotating(Generic[T]):
    """What is made of files, made again once they have changed. Safe to use from several threads.

    Args:
        what: for the log: "the server's certificate".
        paths: of the files.
        load: makes it of them. What it raises the first time is raised by the constructor; later it is logged, once for each
            change, and what there was before stays.
    """

    def __init__(self, what: str, paths: Iterable[Path | None], load: Callable[[], T]) -> None:
        self._what = what
        self._paths = [path for path in paths if path is not None]
        self._load = load
        self._lock = Lock()
        self._seen: Stamps | None = _stamps(self._paths)
        self._value = load()

    def current(self) -> T:
        """It, as the files are now. Costs a look at each file where nothing has changed, and never raises."""
        now = _stamps(self._paths)
        with self._lock:
            if now != self._seen:
                self._seen = now
                self._renew(now)
            return self._value

    def _renew(self, now: Stamps) -> None:
        try:
            value = self._load()
        except Exception as error:
            _log.warning("%s has changed and cannot be used, the one before stays: %s", self._what, error)
            return
        if _stamps(self._paths) != now:
            self._seen = None  # written while it was read: half of it may be new
            return
        self._value = value
        _log.info("%s has changed and was loaded", self._what)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """The files of a server's TLS; with `client_ca_file` clients without a certificate of that CA are refused."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    @property
    def paths(self) -> tuple[Path | None, ...]:
        """All of them."""
        return self.cert_file, self.key_file, self.client_ca_file

    def check(self) -> ssl.SSLContext:
        """A context of them.

        Raises:
            StartupError: a file cannot be read, certificate and key do not belong together, or there is no CA in its file.
        """
        for path in self.paths:
            if path is not None:
                read_pem(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # TLS 1.2 at least
        load_pair(context, self.cert_file, self.key_file)
        if self.client_ca_file is not None:
            try:
                context.load_verify_locations(self.client_ca_file)
            except ssl.SSLError as error:
                raise StartupError(f"{self.client_ca_file} holds no certificate of a CA") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def load_pair(context: ssl.SSLContext, cert_file: Path, key_file: Path) -> None:
    """Gives a context its certificate. Raises StartupError if the two files do not belong together."""
    try:
        context.load_cert_chain(cert_file, key_file, password=_refuse_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise StartupError(f"the TLS certificate {cert_file} and key {key_file} do not fit: {reason}") from error


def read_pem(path: Path) -> bytes:
    """A PEM file's content. Raises StartupError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartupError(f"cannot read {path}: {error.strerror}") from error


def _refuse_password() -> NoReturn:
    """Else OpenSSL would ask for it on the terminal."""
    raise ValueError("the key is encrypted")


def _stamps(paths: Iterable[Path]) -> Stamps:
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size
