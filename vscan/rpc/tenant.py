"""Whose request it is. The tenant comes from the authenticated identity alone; without one it is `default`."""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass

DEFAULT_TENANT = "default"
TENANT_METADATA_KEY = "x-vscan-tenant"  # refused: nobody says of himself whose call it is
ON_BEHALF_OF_KEY = "x-vscan-on-behalf-of"  # of a service that was told so by its own caller's identity

_TENANT_NAME = re.compile(r"[a-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and for whom. Made of the identities file and of what the transport has proved, never of what is said."""

    tenant: str = DEFAULT_TENANT
    identity: str = ""  # its name in the identities file; empty without one
    speaks_for_tenants: bool = False


ANONYMOUS = Caller()
_CALLER: ContextVar[Caller] = ContextVar("vscan_caller", default=ANONYMOUS)


def current_caller() -> Caller:
    """Who makes the call being served."""
    return _CALLER.get()


def current_tenant() -> str:
    """The tenant of the call being served."""
    return _CALLER.get().tenant


def set_caller(caller: Caller) -> None:
    """Says whose call this task serves."""
    _CALLER.set(caller)


def is_tenant_name(text: str) -> bool:
    """Whether a tenant may be called so: 1 to 64 of a-z, 0-9, `.`, `_` and `-`."""
    return _TENANT_NAME.fullmatch(text) is not None
