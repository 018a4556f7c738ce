"""Files with secrets that more people can read, or write, than should."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

from pydantic import BaseModel

# A setting that ends so names a file with a secret; that of identities holds none, but who writes it lets himself in.
_SECRETS = ("_password_file", "_secret_file", "_token_file", "_key_file")
_NOT_FOR_WRITING = ("identities_file",)

_log = logging.getLogger(__name__)


def warn_of_open_files(settings: BaseModel) -> None:
    """Warns of each such file that everybody may read. Its group may: Kubernetes gives a mounted secret to the pod's group."""
    for name in type(settings).model_fields:
        path = getattr(settings, name)
        if not isinstance(path, Path):
            continue
        if name.endswith(_SECRETS) and _mode(path) & (stat.S_IROTH | stat.S_IWOTH):
            _log.warning("%s: %s is open to everybody on this machine; chmod o-rw", name, path)
        elif name in _NOT_FOR_WRITING and _mode(path) & stat.S_IWOTH:
            _log.warning("%s: %s can be written by everybody on this machine; chmod o-w", name, path)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError:
        return 0  # whoever reads it tells
