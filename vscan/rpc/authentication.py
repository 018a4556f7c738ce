"""Who calls: from the bearer token, else from the client's certificate; and for which tenant.

    authorization: Bearer TOKEN     alone decides where it is sent; a wrong one is not made good by a certificate
    the client's certificate        its URI and DNS names; its common name only where it has no names at all
    neither                         refused, unless `allow_anonymous`: then the tenant is `default`

Without an identities file everybody is `default` and nobody speaks for others.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256

from vscan.errors import InvalidArgument, PermissionDenied, Unauthenticated
from vscan.rpc.bearer import MAX_TOKEN_CHARS, is_token
from vscan.rpc.handlers import AroundInterceptor, Call, Context
from vscan.rpc.identities import Identities, certificate_name
from vscan.rpc.tenant import ANONYMOUS, ON_BEHALF_OF_KEY, TENANT_METADATA_KEY, Caller, is_tenant_name, set_caller
from vscan.telemetry.logs import MAX_WORD_CHARS, add_request_fields
from vscan.telemetry.metrics import AdmissionMetrics

AUTHORIZATION_KEY = "authorization"

_SCHEME = re.compile(r"bearer ", re.ASCII | re.IGNORECASE)
# One text for all causes: it tells nobody whether a token was nearly right, has been valid, or belongs to a certificate.
_REFUSAL = "the caller's identity is missing or not known here"


class Authentication(AroundInterceptor):
    """Says whose call it is (`current_caller`), before its request is read.

    Args:
        identities: those that hold now; None where everybody is let in.
        allow_anonymous: let in whoever shows nothing.
        metrics: counts refusals.
    """

    def __init__(
        self, identities: Callable[[], Identities | None], *, allow_anonymous: bool, metrics: AdmissionMetrics
    ) -> None:
        self._identities = identities
        self._allow_anonymous = allow_anonymous
        self._metrics = metrics

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Sets the caller of the call's task."""
        metadata = _by_key(call.context.invocation_metadata())
        try:
            caller = self._on_behalf(self._caller(call.context, metadata), metadata)
        except (Unauthenticated, PermissionDenied) as error:
            reason = "unauthenticated" if isinstance(error, Unauthenticated) else "not_allowed"
            self._metrics.refused(call.method, reason)
            raise
        _refuse_a_said_tenant(metadata)
        set_caller(caller)
        _log_caller(caller)
        yield

    def _caller(self, context: Context, metadata: Mapping[str, list[str | bytes]]) -> Caller:
        identities = self._identities()
        if identities is None:
            return ANONYMOUS
        shown = metadata.get(AUTHORIZATION_KEY)
        caller = _of_certificate(identities, context) if shown is None else _of_token(identities, shown)
        if caller is None and shown is None and self._allow_anonymous:
            return ANONYMOUS
        if caller is None:
            raise Unauthenticated(_REFUSAL)
        return caller

    def _on_behalf(self, caller: Caller, metadata: Mapping[str, list[str | bytes]]) -> Caller:
        named = metadata.get(ON_BEHALF_OF_KEY)
        if named is None:
            return caller
        if not caller.speaks_for_tenants:
            raise PermissionDenied("this caller may not call on behalf of tenants")
        (tenant, *more) = named
        if more or not isinstance(tenant, str) or not is_tenant_name(tenant):
            raise InvalidArgument(f"metadata.{ON_BEHALF_OF_KEY}", "is not the name of one tenant")
        return Caller(tenant=tenant, identity=caller.identity, speaks_for_tenants=True)


def _by_key(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, list[str | bytes]]:
    """The call's metadata. Of gRPC's binary keys (`-bin`) too: what is said in one is not said differently."""
    found: dict[str, list[str | bytes]] = {}
    for key, value in metadata or ():
        found.setdefault(key.lower().removesuffix("-bin"), []).append(value)
    return found


def _of_token(identities: Identities, shown: list[str | bytes]) -> Caller | None:
    """By the token's hash. How long the look-up takes tells of hashes, and from these nobody comes to a random token."""
    (value, *more) = shown
    if more or not isinstance(value, str) or len(value) > MAX_TOKEN_CHARS + len("bearer "):
        return None
    scheme = _SCHEME.match(value)
    if scheme is None or not is_token(token := value[scheme.end() :]):
        return None
    return identities.by_token.get(sha256(token.encode()).digest())


def _of_certificate(identities: Identities, context: Context) -> Caller | None:
    """None as well where the names of one certificate are two identities': nobody has said which one is meant."""
    if not identities.by_certificate:
        return None
    callers = {identities.by_certificate[name] for name in _names(context) if name in identities.by_certificate}
    return callers.pop() if len(callers) == 1 else None


def _names(context: Context) -> Iterator[str]:
    proved = context.auth_context()
    kinds = ("peer_uri", "peer_dns") if proved.get("x509_subject_alternative_name") else ("x509_common_name",)
    for kind in kinds:
        for name in proved.get(kind, ()):
            yield certificate_name(name.decode("utf-8", "replace"))


def _refuse_a_said_tenant(metadata: Mapping[str, object]) -> None:
    if TENANT_METADATA_KEY in metadata:
        raise InvalidArgument(
            f"metadata.{TENANT_METADATA_KEY}", "the tenant comes from the caller's identity and is never sent"
        )


def _log_caller(caller: Caller) -> None:
    add_request_fields(tenant=_short(caller.tenant))
    if caller.identity:
        add_request_fields(identity=_short(caller.identity))


def _short(name: str) -> str:
    """A name as long as a field of the log may be."""
    return name if len(name) <= MAX_WORD_CHARS else f"{name[: MAX_WORD_CHARS - 1]}…"
