"""What an identities file may say, and how a bad one is refused: by its entry and key, without anything that is in it."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vscan.rpc.identities import MAX_IDENTITIES, IdentitiesError, TenantLimit, parse_identities
from vscan.rpc.tenant import Caller

TOKEN = "tok-en"
DIGEST = sha256(TOKEN.encode()).hexdigest()
OTHER = sha256(b"another").hexdigest()

WHOLE = f"""
[[identities]]
name = "shop-web"
tenant = "shop"
token_sha256 = "{DIGEST.upper()}"
[[identities]]
name = "decoder"
certificate = "spiffe://Cluster/decoder"
on_behalf_of = true
[[identities]]
name = "host"
certificate = "Decoder.Example.org"
[tenants.shop]
requests_per_second = 20
burst = 40
max_concurrent_calls = 32
"""


def problem(text: str) -> str:
    with pytest.raises(IdentitiesError) as caught:
        parse_identities(text.encode())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def entry(name: str = "a", **fields: str) -> str:
    lines = {"name": f'"{name}"', "token_sha256": f'"{DIGEST}"'} | fields
    return "[[identities]]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items() if value)


def test_a_whole_file() -> None:
    found = parse_identities(WHOLE.encode())
    assert found.by_token == {sha256(TOKEN.encode()).digest(): Caller("shop", "shop-web")}
    assert found.by_certificate == {
        "spiffe://Cluster/decoder": Caller("default", "decoder", speaks_for_tenants=True),
        "decoder.example.org": Caller("default", "host"),  # names of hosts are compared without regard to case
    }
    assert found.limits == {"shop": TenantLimit(20.0, 40, 32)}
    assert found.tenants == {"default", "shop"}
    assert found.names_other_tenants


def test_an_empty_file_lets_nobody_in() -> None:
    found = parse_identities(b"")
    assert not list(found.callers)
    assert not found.names_other_tenants


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (entry(tenant='"Shop"'), "identities[0] (a).tenant: "),
        (entry(tenant='""'), "identities[0] (a).tenant: "),
        (entry(tenant='"ü"'), "identities[0] (a).tenant: "),
        (entry(tenant='"a b"'), "identities[0] (a).tenant: "),
        (entry(tenant='"shop\\n"'), "identities[0] (a).tenant: "),
        (entry(tenant=f'"{"x" * 65}"'), "identities[0] (a).tenant: "),
        (entry(name=""), "identities[0].name: "),
        (entry(name="two words"), "identities[0].name: "),
        (entry(name="x" * 65), "identities[0].name: "),
        (entry(token_sha256='"abc"'), "identities[0] (a).token_sha256: 64 hexadecimal digits"),
        (entry(token_sha256=f'"{DIGEST}\\n"'), "identities[0] (a).token_sha256: 64 hexadecimal digits"),
        (entry(token_sha256=""), "identities[0] (a): one of token_sha256 and certificate"),
        (entry(certificate='"x"'), "identities[0] (a): one of token_sha256 and certificate"),
        (entry(token_sha256="", certificate='"a b"'), "identities[0] (a).certificate: "),
        (entry(token_sha256="", certificate='""'), "identities[0] (a).certificate: "),
        (entry(on_behalf_of='"yes"'), "identities[0] (a).on_behalf_of: "),
        (entry(on_behalf_of="1"), "identities[0] (a).on_behalf_of: "),
        (entry(token='"secret"'), "identities[0] (a): Extra inputs"),
        (entry() + entry(), "identities (a) and (a) have the same name"),
        (entry("a") + entry("b"), "identities (a) and (b) have the same token_sha256"),
        (
            entry("a", token_sha256="", certificate='"x.org"') + entry("b", token_sha256="", certificate='"X.org"'),
            "identities (a) and (b) have the same certificate",
        ),
        ("[tenants.Shop]\nburst = 1", "tenants.…: "),
        ("[tenants.shop]\nburst = 0", "tenants.shop.burst: "),
        ("[tenants.shop]\nburst = 1.5", "tenants.shop.burst: "),
        ("[tenants.shop]\nrequests_per_second = 0", "tenants.shop.requests_per_second: "),
        ("[tenants.shop]\nrequests_per_second = inf", "tenants.shop.requests_per_second: "),
        ("[tenants.shop]\nrequests_per_second = nan", "tenants.shop.requests_per_second: "),
        ("[tenants.shop]\nmax_concurrent_calls = -1", "tenants.shop.max_concurrent_calls: "),
        ("[tenants.shop]\nrate = 1", "tenants.shop: Extra inputs"),
        ("secret = 1", "an unknown key: "),
        ("identities = 3", "identities: "),
        ("identities = [3]", "identities[0]: "),
        ("[[identities]\n", "not TOML (at line 1, column 13)"),
        ("x = " + "[" * 10_000, "not TOML"),
        ("x = " + "9" * 5_000, "not TOML"),
    ],
)
def test_a_bad_one_is_named(text: str, said: str) -> None:
    assert problem(text).startswith(said)


@pytest.mark.parametrize(
    "text",
    [
        entry(token_sha256='"my-secret-token"'),
        entry(tenant='"my-secret-token!"'),
        entry(**{'"my-secret-token"': "1"}),
        '"my-secret-token" = 1',
        '[tenants."my-secret-token!"]\nburst = 1',
        '[tenants.shop]\n"my-secret-token" = 1',
        "my-secret-token",
        'x = "my-secret-token" my-secret-token',
        entry(certificate='"my-secret-token"'),
    ],
)
def test_what_is_in_the_file_is_not_shown(text: str) -> None:
    """A token may stand where its hash belongs."""
    assert "my-secret-token" not in problem(text)


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(IdentitiesError, match="not UTF-8"):
        parse_identities(b"\xff\xfe")


def test_more_identities_than_the_bound() -> None:
    many = "".join(entry(f"n{number}", token_sha256=f'"{number:064x}"') for number in range(MAX_IDENTITIES + 1))
    assert problem(many).startswith("identities: ")


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_whatever_is_in_it_is_read_or_refused_in_one_way(content: bytes) -> None:
    with suppress(IdentitiesError):
        parse_identities(content)
