"""Who may call, as the identities file says it: names, tenants, what proves them, and the limits of tenants.

    [[identities]]
    name = "shop-web"                           # for logs
    tenant = "shop"                             # default: "default"
    token_sha256 = "9f86d0818…"                 # SHA-256 of a bearer token, 64 hexadecimal digits

    [[identities]]
    name = "decoder"
    certificate = "spiffe://cluster/decoder"    # a URI or DNS name of the client's certificate; see `authentication`
    on_behalf_of = true                         # may say for which tenant it calls

    [tenants.shop]
    requests_per_second = 20.0
    burst = 40
    max_concurrent_calls = 32

No token is in it: whoever reads it cannot call.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vscan.rpc.tenant import DEFAULT_TENANT, Caller, is_tenant_name

MAX_FILE_BYTES = 2**20
MAX_IDENTITIES = 4096
_NAME = re.compile(r"[A-Za-z0-9._@:/-]{1,64}", re.ASCII)


class IdentitiesError(ValueError):
    """What is wrong, on one line. It never shows a value of the file: a token may have been put where its hash belongs."""


@dataclass(frozen=True, slots=True)
class TenantLimit:
    """What the file allows a tenant; None is as the settings say."""

    requests_per_second: float | None = None
    burst: int | None = None
    max_concurrent_calls: int | None = None


@dataclass(frozen=True, slots=True)
class Identities:
    """One version of the file."""

    by_token: Mapping[bytes, Caller]  # by the token's SHA-256
    by_certificate: Mapping[str, Caller]
    limits: Mapping[str, TenantLimit]

    @property
    def callers(self) -> Iterable[Caller]:
        """All of them."""
        return (*self.by_token.values(), *self.by_certificate.values())

    @property
    def tenants(self) -> frozenset[str]:
        """Whose calls may come; those named on somebody's behalf are not among them."""
        return frozenset({DEFAULT_TENANT, *(caller.tenant for caller in self.callers)})

    @property
    def names_other_tenants(self) -> bool:
        """Whether calls of another tenant than `default` may come."""
        return any(caller.speaks_for_tenants or caller.tenant != DEFAULT_TENANT for caller in self.callers)


def parse_identities(content: bytes) -> Identities:
    """Reads the file's text.

    Raises:
        IdentitiesError: naming the entry and the key.
    """
    file = _File.load(content)
    return _resolve(file.identities, file.tenants)


def certificate_name(text: str) -> str:
    """A name of a certificate as it is compared: of a URI as it is, of a host (DNS) without regard to case."""
    return text if ":" in text else text.lower()


def _tenant_name(text: str) -> str:
    if not is_tenant_name(text):
        raise ValueError("1 to 64 of a-z, 0-9, '.', '_' and '-' make a tenant's name")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("1 to 64 of letters, digits and '._@:/-' make a name")
    return text


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("64 hexadecimal digits are needed, the SHA-256 of the token (`vscan token` prints it)")
    return text.lower()


def _certificate(text: str) -> str:
    if not re.fullmatch(r"[!-~]{1,512}", text):
        raise ValueError("a URI or a DNS name of a certificate is needed: 1 to 512 visible ASCII characters")
    return certificate_name(text)


_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)
TenantName = Annotated[str, AfterValidator(_tenant_name)]


class _Identity(BaseModel):
    model_config = _STRICT

    name: Annotated[str, AfterValidator(_name)]
    tenant: TenantName = DEFAULT_TENANT
    token_sha256: Annotated[str, AfterValidator(_digest)] | None = Field(default=None, repr=False)
    certificate: Annotated[str, AfterValidator(_certificate)] | None = None
    on_behalf_of: bool = False

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if (self.token_sha256 is None) == (self.certificate is None):
            raise ValueError("one of token_sha256 and certificate is needed, and not both")
        return self

    @property
    def caller(self) -> Caller:
        return Caller(tenant=self.tenant, identity=self.name, speaks_for_tenants=self.on_behalf_of)


class _Tenant(BaseModel):
    model_config = _STRICT

    requests_per_second: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    burst: int | None = Field(default=None, ge=1)
    max_concurrent_calls: int | None = Field(default=None, ge=1)

    @property
    def limit(self) -> TenantLimit:
        return TenantLimit(**self.model_dump())


class _File(BaseModel):
    model_config = _STRICT

    identities: list[_Identity] = Field(default=[], max_length=MAX_IDENTITIES)
    tenants: dict[TenantName, _Tenant] = Field(default={}, max_length=MAX_IDENTITIES)

    @classmethod
    def load(cls, content: bytes) -> Self:
        document = _document(content)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise IdentitiesError(_first_problem(error, document)) from None


def _document(content: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise IdentitiesError("not UTF-8") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits is a plain ValueError
        place = re.search(r"\(at [^()]*\)$", str(error))
        raise IdentitiesError(f"not TOML{f' {place[0]}' if place else ''}") from None


def _first_problem(error: ValidationError, document: Mapping[str, Any]) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{_place(problem['loc'], document)}: {problem['msg'].removeprefix('Value error, ')}"


def _place(location: tuple[int | str, ...], document: Mapping[str, Any]) -> str:
    """`identities[2] (shop-web).tenant`. Keys that nobody knows are not shown: they may hold anything."""
    match location:
        case ("identities", int() as index, *rest):
            return f"identities[{index}]{_named(document, index)}" + "".join(f".{key}" for key in rest[:1] if key in _KEYS)
        case ("tenants", str() as tenant, *rest):
            shown = tenant if is_tenant_name(tenant) else "…"
            return f"tenants.{shown}" + "".join(f".{key}" for key in rest[:1] if key in _KEYS)
        case (str() as key, *_) if key in _File.model_fields:
            return key
        case _:
            return "an unknown key"


_KEYS = {*_Identity.model_fields, *_Tenant.model_fields}


def _named(document: Mapping[str, Any], index: int) -> str:
    name = document["identities"][index].get("name") if isinstance(document["identities"][index], dict) else None
    return f" ({name})" if isinstance(name, str) and _NAME.fullmatch(name) else ""


def _resolve(entries: list[_Identity], tenants: Mapping[str, _Tenant]) -> Identities:
    _refuse_repeated("name", [(entry.name, entry.name) for entry in entries])
    _refuse_repeated("token_sha256", [(entry.name, entry.token_sha256) for entry in entries if entry.token_sha256])
    _refuse_repeated("certificate", [(entry.name, entry.certificate) for entry in entries if entry.certificate])
    return Identities(
        by_token={bytes.fromhex(entry.token_sha256): entry.caller for entry in entries if entry.token_sha256},
        by_certificate={entry.certificate: entry.caller for entry in entries if entry.certificate},
        limits={name: tenant.limit for name, tenant in tenants.items()},
    )


def _refuse_repeated(key: str, values: Iterable[tuple[str, Any]]) -> None:
    seen: dict[Any, str] = {}
    for name, value in values:
        if value in seen:
            raise IdentitiesError(f"identities ({seen[value]}) and ({name}) have the same {key}")
        seen[value] = name
