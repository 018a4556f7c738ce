"""Whose request it is. The tenant comes from the authenticated identity alone; without one it is `default`."""

from __future__ import annotations

from contextvars import ContextVar

DEFAULT_TENANT = "default"
TENANT_METADATA_KEY = "x-vscan-tenant"

_TENANT: ContextVar[str] = ContextVar("vscan_tenant", default=DEFAULT_TENANT)


def current_tenant() -> str:
    """The tenant of the call being served."""
    return _TENANT.get()


def set_tenant(tenant: str) -> None:
    """Says whose call this task serves."""
    _TENANT.set(tenant)
