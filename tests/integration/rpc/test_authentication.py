"""Who is let in, and for which tenant: over real gRPC, with tokens and with certificates."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.certificates import Authority, Certificate
from tests.support.identities import IdentitiesFile
from tests.support.toy_services import DECODER, ToyDecoder, decoder_stub, failure, raw, serving_decoder
from tests.support.until import until
from vscan.errors import InvalidArgument, PermissionDenied, StartupError, Unauthenticated
from vscan.rpc.channel import ClientTls, open_channel
from vscan.rpc.error_details import error_from_rpc
from vscan.rpc.identities import Identities
from vscan.rpc.identity_book import IdentityBook
from vscan.rpc.server import RpcServer
from vscan.rpc.settings import RpcSettings
from vscan.rpc.tenant import Caller, current_caller
from vscan.v1 import decoder_pb2, decoder_pb2_grpc

DESCRIBE = decoder_pb2.DescribeDecoderRequest()
REFUSAL = "the caller's identity is missing or not known here"
Headers = tuple[tuple[str, str | bytes], ...]


class Asked:
    """A server that lets in whom a file names, and who its calls came from."""

    def __init__(self, address: str, seen: list[Caller], server: RpcServer) -> None:
        self.address = address
        self.seen = seen
        self.server = server

    async def call(self, *headers: tuple[str, str | bytes], tls: ClientTls | None = None) -> Caller:
        """Whom the servicer takes a caller for."""
        async with open_channel(self.address, tls=tls) as channel:
            await decoder_pb2_grpc.DecoderStub(channel).Describe(DESCRIBE, metadata=headers, timeout=20)  # type: ignore[no-untyped-call]
        return self.seen[-1]

    async def refusal(self, *headers: tuple[str, str | bytes], tls: ClientTls | None = None) -> Any:
        """The error in which a call ends; the servicer has not seen it."""
        before = len(self.seen)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(*headers, tls=tls)
        assert len(self.seen) == before
        return error_from_rpc(caught.value)

    async def refused_unknown(self, *headers: tuple[str, str | bytes], tls: ClientTls | None = None) -> None:
        """A call is refused as every other whose caller is not known."""
        error = await self.refusal(*headers, tls=tls)
        assert isinstance(error, Unauthenticated)
        assert error.message == REFUSAL
        assert not error.retryable


@asynccontextmanager
async def asked(people: IdentitiesFile | None, **settings: Any) -> AsyncIterator[Asked]:
    seen: list[Caller] = []
    servicer = ToyDecoder(on_call=lambda context: seen.append(current_caller()))
    file = None if people is None else people.path
    async with serving_decoder(servicer, RpcSettings(identities_file=file, drain_seconds=5, **settings)) as (server, address):
        yield Asked(address, seen, server)


@pytest.fixture
def people(tmp_path: Path) -> IdentitiesFile:
    """Two tenants and a decoder."""
    people = IdentitiesFile(tmp_path / "people")
    people.add("web", "shop")
    people.add("lab", "lab")
    people.add("decoder", on_behalf_of=True)
    return people


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")


# ── Tokens


async def test_the_token_says_whose_call_it_is(people: IdentitiesFile) -> None:
    async with asked(people) as server:
        assert await server.call(bearer(people.tokens["web"])) == Caller("shop", "web")
        assert await server.call(bearer(people.tokens["lab"])) == Caller("lab", "lab")
        assert await server.call(("authorization", f"bEARER {people.tokens['web']}")) == Caller("shop", "web")  # RFC 7235


async def test_a_stream_has_its_caller_too(people: IdentitiesFile) -> None:
    async with asked(people) as server, decoder_stub(server.address) as stub:
        async for _ in stub.Generate(raw("one two"), metadata=(bearer(people.tokens["lab"]),)):
            pass
        assert server.seen == [Caller("lab", "lab")]
        error = error_from_rpc(await failure(stub.Generate(raw("one"), metadata=(bearer("wrong"),))))
        assert isinstance(error, Unauthenticated)
        assert server.seen == [Caller("lab", "lab")]


@pytest.mark.parametrize("allow_anonymous", [False, True])
async def test_all_that_is_wrong_is_refused_in_the_same_words(people: IdentitiesFile, allow_anonymous: bool) -> None:
    right = people.tokens["web"]
    wrong: list[Headers] = [
        (bearer("wrong"),),
        (bearer(right[:-1]),),
        (bearer(right + "x"),),
        (bearer(right.swapcase()),),
        (bearer(""),),
        (bearer(f" {right}"),),
        (bearer(f"{right}, Bearer {right}"),),
        (("authorization", right),),
        (("authorization", f"Basic {right}"),),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (bearer(right), bearer(right)),  # twice, though the same
        (bearer(right), bearer("wrong")),
        (bearer("wrong"), bearer(right)),
        (("authorization-bin", f"Bearer {right}".encode()),),
        (("authorization-bin", b"\xff\x00"),),
        (bearer(right), ("authorization-bin", b"x")),
        (bearer("x" * 16_000),),
    ]
    async with asked(people, allow_anonymous=allow_anonymous) as server:
        for headers in wrong:
            await server.refused_unknown(*headers)
        assert await server.call(bearer(right)) == Caller("shop", "web")


async def test_a_token_larger_than_metadata_may_be_is_not_let_in(people: IdentitiesFile) -> None:
    """gRPC itself may refuse it, and the next call is fine."""
    async with asked(people) as server:
        for size in (64 * 1024, 256 * 1024):
            await server.refusal(bearer("x" * size))
        assert await server.call(bearer(people.tokens["web"])) == Caller("shop", "web")


async def test_a_caller_who_shows_nothing(people: IdentitiesFile) -> None:
    async with asked(people) as server:
        await server.refused_unknown()
    async with asked(people, allow_anonymous=True) as server:
        assert await server.call() == Caller()


async def test_without_a_file_everybody_is_the_default_tenant() -> None:
    async with asked(None) as server:
        assert await server.call() == Caller()
        assert await server.call(bearer("anything")) == Caller()


async def test_bytes_that_are_no_message_are_not_looked_at_before_the_caller_is_known(people: IdentitiesFile) -> None:
    async with asked(people) as server, open_channel(server.address) as channel:
        call: Any = channel.unary_unary(f"/{DECODER}/Describe", bytes, bytes)
        assert isinstance(error_from_rpc(await failure(call(b"\xff\xff"))), Unauthenticated)
        right = (bearer(people.tokens["web"]),)
        assert isinstance(error_from_rpc(await failure(call(b"\xff\xff", metadata=right))), InvalidArgument)


async def test_a_stranger_is_refused_who_never_sends_a_request(people: IdentitiesFile) -> None:
    """He could hold a place for as long as he likes; one of us who is slow is waited for."""
    async with asked(people) as server, open_channel(server.address) as channel:
        method: Any = channel.stream_stream(f"/{DECODER}/Describe", bytes, bytes)
        for headers in ((), (bearer("wrong"),), (bearer("wrong"), bearer(people.tokens["web"]))):
            call = method(metadata=headers, timeout=20)
            assert isinstance(error_from_rpc(await failure(call)), Unauthenticated)
        slow = method(metadata=(bearer(people.tokens["web"]),))
        await slow.write(DESCRIBE.SerializeToString())
        await slow.done_writing()
        assert decoder_pb2.DescribeDecoderResponse.FromString(await slow.read()).model == "toy"
    async with asked(people, allow_anonymous=True) as server:
        assert await server.call() == Caller()


async def test_health_is_for_everybody(people: IdentitiesFile) -> None:
    async with asked(people) as server, open_channel(server.address) as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=DECODER))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


# ── On behalf of


async def test_a_decoder_may_say_for_whom_it_calls(people: IdentitiesFile) -> None:
    async with asked(people) as server:
        for tenant in ("default", "shop", "not.in-the_file"):
            caller = await server.call(bearer(people.tokens["decoder"]), ("x-vscan-on-behalf-of", tenant))
            assert caller == Caller(tenant, "decoder", speaks_for_tenants=True)
        assert await server.call(bearer(people.tokens["decoder"])) == Caller("default", "decoder", speaks_for_tenants=True)


@pytest.mark.parametrize("named", ["shop", "lab", "default", "NOT A NAME", ""])
async def test_nobody_else_may(people: IdentitiesFile, named: str) -> None:
    said = ("x-vscan-on-behalf-of", named)
    async with asked(people, allow_anonymous=True) as server:
        for headers in ((said,), (said, bearer(people.tokens["web"]))):
            assert isinstance(await server.refusal(*headers), PermissionDenied)
        await server.refused_unknown(said, bearer("wrong"))
    async with asked(None) as server:
        assert isinstance(await server.refusal(said), PermissionDenied)


@pytest.mark.parametrize(
    "said",
    [
        (("x-vscan-on-behalf-of", "Shop"),),
        (("x-vscan-on-behalf-of", ""),),
        (("x-vscan-on-behalf-of", "a b"),),
        (("x-vscan-on-behalf-of", "shop,lab"),),
        (("x-vscan-on-behalf-of", "../shop"),),
        (("x-vscan-on-behalf-of", "x" * 65),),
        (("x-vscan-on-behalf-of", "shop"), ("x-vscan-on-behalf-of", "lab")),
        (("x-vscan-on-behalf-of-bin", b"shop"),),
        (("x-vscan-on-behalf-of", "shop"), ("x-vscan-on-behalf-of-bin", b"lab")),
        (("x-vscan-on-behalf-of-bin", "sh\u00f6p".encode()),),
    ],
)
async def test_a_name_that_is_none_is_refused(people: IdentitiesFile, said: Headers) -> None:
    async with asked(people) as server:
        error = await server.refusal(bearer(people.tokens["decoder"]), *said)
    assert isinstance(error, InvalidArgument)
    assert error.field == "metadata.x-vscan-on-behalf-of"


async def test_a_tenant_is_never_said(people: IdentitiesFile) -> None:
    async with asked(people) as server:
        for name, key in itertools.product(("web", "decoder"), ("x-vscan-tenant", "x-vscan-tenant-bin")):
            value: Any = b"shop" if key.endswith("-bin") else "shop"
            error = await server.refusal(bearer(people.tokens[name]), (key, value))
            assert isinstance(error, InvalidArgument)


# ── A file that changes


async def test_who_is_removed_is_refused_and_who_is_added_let_in(people: IdentitiesFile) -> None:
    async with asked(people) as server:
        old = people.tokens["web"]
        assert (await server.call(bearer(old))).tenant == "shop"
        people.remove("web")
        new = people.add("new", "shop")
        await until(lambda: is_let_in(server, new))
        assert (await server.call(bearer(new))).tenant == "shop"
        await server.refused_unknown(bearer(old))


async def is_let_in(server: Asked, token: str) -> bool:
    try:
        await server.call(bearer(token))
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_a_bad_version_is_told_once_and_the_last_one_holds(
    people: IdentitiesFile, caplog: pytest.LogCaptureFixture
) -> None:
    token, good = people.tokens["web"], people.path.read_text()

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]

    async with asked(people) as server:
        for number, bad in enumerate(
            ["name = 'my-secret", '[[identities]]\nname = "a"\ntoken_sha256 = "my-secret"', "x" * 2**21]
        ):
            people.path.write_text(bad)
            await until(lambda number=number: len(told()) == number + 1)  # type: ignore[misc]
            assert (await server.call(bearer(token))).tenant == "shop"
        people.path.unlink()
        await until(lambda: len(told()) == 4)
        book: Any = server.server._book
        await book.refresh()
        assert len(told()) == 4  # the same trouble is told once
        assert (await server.call(bearer(token))).tenant == "shop"
        people.path.write_text(good)
        late = people.add("late", "lab")
        await until(lambda: is_let_in(server, late))
    assert "my-secret" not in caplog.text


@pytest.mark.parametrize("bad", ["name = ", '[[identities]]\nname = "a"\ntoken_sha256 = "my-secret"', None])
async def test_a_server_does_not_start_with_a_bad_file(tmp_path: Path, bad: str | None) -> None:
    path = tmp_path / "identities.toml"
    if bad is not None:
        path.write_text(bad)
    with pytest.raises(StartupError) as caught:
        RpcServer(RpcSettings(identities_file=path), services=[DECODER])
    assert caught.value.message.startswith(f"identities_file: {path}: ")
    assert "my-secret" not in caught.value.message


# ── Certificates


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def mutual_tls(authority: Authority) -> dict[str, Any]:
    own = authority.issue("127.0.0.1")
    return {"tls_cert_file": own.cert_file, "tls_key_file": own.key_file, "tls_client_ca_file": authority.ca_file}


def client_tls(authority: Authority, certificate: Certificate) -> ClientTls:
    return ClientTls(ca_file=authority.ca_file, cert_file=certificate.cert_file, key_file=certificate.key_file)


async def test_names_of_a_certificate(tmp_path: Path, authority: Authority) -> None:
    people = IdentitiesFile(tmp_path / "people")
    people.add("by-uri", "shop", certificate="spiffe://cluster/shop", on_behalf_of=True)
    people.add("by-host", "lab", certificate="Lab.example.org")
    people.add("by-common-name", "old", certificate="old-client")
    token = people.add("web", "web")

    def shows(uris: tuple[str, ...] = (), hosts: tuple[str, ...] = (), common_name: str = "") -> ClientTls:
        return client_tls(authority, authority.issue_client(uris=uris, hosts=hosts, common_name=common_name))

    uri, host = shows(("spiffe://cluster/shop",)), shows(hosts=("lab.EXAMPLE.org",))
    async with asked(people, **mutual_tls(authority)) as server:
        assert await server.call(tls=uri) == Caller("shop", "by-uri", speaks_for_tenants=True)
        assert await server.call(tls=host) == Caller("lab", "by-host")
        assert await server.call(tls=shows(common_name="old-client")) == Caller("old", "by-common-name")
        # Of one with other names too the one that is known counts; a token stands above it, and a wrong one is not made good.
        assert await server.call(tls=shows(("spiffe://x/y",), ("lab.example.org",))) == Caller("lab", "by-host")
        assert await server.call(bearer(token), tls=uri) == Caller("web", "web")
        await server.refused_unknown(bearer("wrong"), tls=uri)
        for stranger in (
            shows(("spiffe://cluster/shop/x",)),
            shows(("spiffe://cluster/Shop",)),
            shows(hosts=("example.org",)),
            shows(hosts=("x.example.org",), common_name="old-client"),  # it has names: its common name says nothing
            shows(common_name="Nobody"),
            shows(("spiffe://cluster/shop",), ("lab.example.org",)),  # two identities at once
            client_tls(authority, authority.issue("lab@lab.example.org")),  # a mail address is no host
        ):
            await server.refused_unknown(tls=stranger)


async def test_any_certificate_of_the_ca_is_let_in_where_there_is_no_file(authority: Authority) -> None:
    known = client_tls(authority, authority.issue_client(uris=["spiffe://cluster/anybody"]))
    async with asked(None, **mutual_tls(authority)) as server:
        assert await server.call(tls=known) == Caller()


async def test_without_a_certificate_nobody_comes_as_far_as_the_identities(
    people: IdentitiesFile, authority: Authority
) -> None:
    async with asked(people, **mutual_tls(authority)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.call(bearer(people.tokens["web"]), tls=ClientTls(ca_file=authority.ca_file))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


# ── Beyond loopback


def start_beyond_loopback(**settings: Any) -> RpcServer:
    return RpcServer(RpcSettings(bind="0.0.0.0:0", **settings), services=[DECODER])


async def test_beyond_loopback_somebody_must_have_said_who_may_call(people: IdentitiesFile, authority: Authority) -> None:
    both = mutual_tls(authority)
    ca = {"tls_client_ca_file": both.pop("tls_client_ca_file")}
    with pytest.raises(StartupError) as caught:
        start_beyond_loopback(**both)
    for setting in ("identities_file", "tls_client_ca_file", "allow_anonymous"):
        assert f"`{setting}`" in caught.value.message
    for said in ({"identities_file": people.path}, ca, {"allow_anonymous": True}, {"insecure": True}):
        start_beyond_loopback(**both, **said)
    with pytest.raises(StartupError, match="plaintext"):
        start_beyond_loopback(identities_file=people.path, allow_anonymous=True)
    start_beyond_loopback(insecure=True)


async def test_a_version_that_does_not_fit_here_is_not_taken_up(
    people: IdentitiesFile, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a decoder that nothing shows to its encoder, when its file begins to name tenants."""

    def why_not(identities: Identities) -> str | None:
        return "no labs here" if "lab" in identities.tenants else None

    with pytest.raises(StartupError, match="no labs here"):
        IdentityBook(people.path, why_not=why_not)
    people.remove("lab")
    book = IdentityBook(people.path, why_not=why_not)
    people.add("lab", "lab")
    await looked_twice(book)
    assert book.now.tenants == {"default", "shop"}
    assert "no labs here" in caplog.text
    people.remove("lab")
    people.add("more", "more")
    await looked_twice(book)
    assert book.now.tenants == {"default", "shop", "more"}


async def looked_twice(book: IdentityBook) -> None:
    """So that a version that has come is found unchanged."""
    for _ in range(2):
        await book.refresh()


async def test_half_a_version_does_not_hold(people: IdentitiesFile) -> None:
    """It says nothing false to whoever parses it: of an entry whose tenant is still to be written it is `default`."""
    book = IdentityBook(people.path)
    before = book.now
    entry = f'[[identities]]\nname = "new"\ntoken_sha256 = "{"ab" * 32}"\n'
    people.path.write_text(entry)
    await book.refresh()
    assert book.now is before
    people.path.write_text(f'{entry}tenant = "shop"\n')
    await book.refresh()
    assert book.now is before
    await book.refresh()
    assert {caller.tenant for caller in book.now.callers} == {"shop"}


async def test_limits_of_nobody_are_told(people: IdentitiesFile, caplog: pytest.LogCaptureFixture) -> None:
    people.limit("shpo", burst=3)
    IdentityBook(people.path)
    assert "shpo" in caplog.text
