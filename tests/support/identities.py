"""An identities file for tests, and the tokens of those in it."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Any


class IdentitiesFile:
    """Each change writes the whole file anew and puts it there at once.

    Args:
        folder: for the file, `path`, and a file for each token.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "identities.toml"
        self.tokens: dict[str, str] = {}  # by name
        self._entries: dict[str, dict[str, Any]] = {}
        self._limits: dict[str, dict[str, float]] = {}
        self._write()

    def add(self, name: str, tenant: str = "default", *, certificate: str | None = None, on_behalf_of: bool = False) -> str:
        """Lets somebody in, by a new token, or by a certificate of that name. Returns the token."""
        entry: dict[str, Any] = {"name": name, "tenant": tenant}
        if certificate is None:
            self.tokens[name] = secrets.token_urlsafe(32)
            entry["token_sha256"] = hashlib.sha256(self.tokens[name].encode()).hexdigest()
            self.token_file(name).write_text(f"{self.tokens[name]}\n")
            self.token_file(name).chmod(0o600)
        else:
            entry["certificate"] = certificate
        if on_behalf_of:
            entry["on_behalf_of"] = True
        self._entries[name] = entry
        self._write()
        return self.tokens.get(name, "")

    def remove(self, name: str) -> None:
        """Shuts somebody out."""
        del self._entries[name]
        self._write()

    def limit(self, tenant: str, **limits: float) -> None:
        """What a tenant may have."""
        self._limits[tenant] = limits
        self._write()

    def token_file(self, name: str) -> Path:
        """Where the token of somebody is."""
        return self.folder / f"{name}.token"

    def _write(self) -> None:
        parts = [f"[[identities]]\n{_lines(entry)}" for entry in self._entries.values()]
        parts += [f'[tenants."{tenant}"]\n{_lines(limits)}' for tenant, limits in self._limits.items()]
        partial = self.path.with_suffix(".new")
        partial.write_text("\n".join(parts))
        partial.replace(self.path)


def _lines(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {_literal(value)}\n" for key, value in values.items())


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | int | float) else f'"{value}"'
