"""Two tenants on one deployment, with the same image: nothing that one does is seen by the other, in either service."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.encoder import png
from tests.support.identities import IdentitiesFile
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, in_process_stack
from tests.support.until import until
from vscan.errors import MissingImages, PermissionDenied, StartupError, Unauthenticated
from vscan.rpc.channel import open_channel
from vscan.rpc.error_details import error_from_rpc
from vscan.v1 import encoder_pb2, encoder_pb2_grpc
from vscan_client import AsyncClient, Image, Place, Retry

IMAGE = png(41)
DIGEST = hashlib.sha256(IMAGE).digest()
ONCE = Retry(attempts=1)


@dataclass(frozen=True)
class Deployment:
    """Both services with one identities file: the shop, the lab, and the decoder."""

    stack: Stack
    people: IdentitiesFile

    def client(self, name: str, **changes: Any) -> AsyncClient:
        return AsyncClient(
            server=self.stack.decoder_address,
            encoder=self.stack.encoder_address,
            token=self.people.tokens[name],
            retry=ONCE,
            **changes,
        )


def make_people(folder: Path) -> IdentitiesFile:
    people = IdentitiesFile(folder)
    people.add("web", "shop")
    people.add("lab", "lab")
    people.add("decoder", on_behalf_of=True)
    return people


@asynccontextmanager
async def deployed(people: IdentitiesFile, redis: RedisServer | None, **decoder: Any) -> AsyncIterator[Deployment]:
    own = {"identities_file": people.path, "encoder_token_file": people.token_file("decoder")}
    async with in_process_stack(redis=redis, encoder={"identities_file": people.path}, decoder=own | decoder) as stack:
        yield Deployment(stack, people)


async def test_what_one_tenant_has_sent_is_unknown_to_the_other(fresh_redis: RedisServer, tmp_path: Path) -> None:
    async with (
        deployed(make_people(tmp_path), fresh_redis) as deployment,
        deployment.client("web", remembered_images=0) as web,
        deployment.client("lab", remembered_images=0) as lab,
    ):
        first = await web.ask(IMAGE, "w7")
        assert first.images[0].place is Place.ENCODED
        # By its digest: neither service knows it, in memory or in Redis, and no look-up tells of it.
        named = Image(sha256=DIGEST)
        for refused in (lab.ask(named, "w7"), lab.encode(named)):
            with pytest.raises(MissingImages):
                await refused
        assert await lab.lookup(named) == (None,)
        assert await web.lookup(named) != (None,)
        # By its bytes: it is encoded again, and the prompt runs from its first row.
        engine = deployment.stack.decoder.engine
        reused = engine.figures.reused_rows
        second = await lab.ask(IMAGE, "w7")
        assert engine.figures.reused_rows == reused
        assert second.images[0].place is Place.ENCODED
        assert second.text == first.text
        again = await web.ask(named, "w7")
        assert again.images[0].place is Place.MEMORY
        assert engine.figures.reused_rows > reused
        assert await lab.lookup(named) != (None,)


async def test_a_caller_without_an_identity_gets_nothing_from_either_service(tmp_path: Path) -> None:
    people = make_people(tmp_path)
    async with deployed(people, None) as deployment:
        for token in (None, "wrong"):
            stranger = AsyncClient(
                server=deployment.stack.decoder_address, encoder=deployment.stack.encoder_address, token=token, retry=ONCE
            )
            async with stranger:
                for refused in (
                    stranger.ask(IMAGE, "w7"),
                    stranger.encode(IMAGE),
                    stranger.lookup(IMAGE),
                    stranger.describe(),
                    stranger.describe_encoder(),
                ):
                    with pytest.raises(Unauthenticated):
                        await refused


async def test_a_tenant_cannot_speak_for_another_at_the_encoder(tmp_path: Path) -> None:
    people = make_people(tmp_path)
    async with deployed(people, None) as deployment, open_channel(deployment.stack.encoder_address) as channel:
        stub: Any = encoder_pb2_grpc.VisionEncoderStub(channel)  # type: ignore[no-untyped-call]
        headers = (("authorization", f"Bearer {people.tokens['lab']}"), ("x-vscan-on-behalf-of", "shop"))
        for call in (
            stub.Lookup(encoder_pb2.LookupRequest(sha256=[DIGEST]), metadata=headers),
            stub.Describe(encoder_pb2.DescribeEncoderRequest(), metadata=headers),
        ):
            with pytest.raises(Exception) as caught:
                await call
            assert isinstance(error_from_rpc(caught.value), PermissionDenied)  # type: ignore[arg-type]


async def test_the_decoder_may_show_a_certificate(tmp_path: Path) -> None:
    people, authority = make_people(tmp_path), Authority(tmp_path)
    people.remove("decoder")
    people.add("decoder", certificate="spiffe://cluster/decoder", on_behalf_of=True)
    server, own = authority.issue("127.0.0.1"), authority.issue_client(uris=["spiffe://cluster/decoder"])
    encoder = {
        "identities_file": people.path,
        "tls_cert_file": server.cert_file,
        "tls_key_file": server.key_file,
        "tls_client_ca_file": authority.ca_file,
    }
    decoder = {
        "identities_file": people.path,
        "encoder_tls": True,
        "encoder_tls_ca_file": authority.ca_file,
        "encoder_tls_cert_file": own.cert_file,
        "encoder_tls_key_file": own.key_file,
    }
    async with in_process_stack(encoder=encoder, decoder=decoder) as stack:
        async with AsyncClient(server=stack.decoder_address, token=people.tokens["web"]) as web:
            assert (await web.ask(IMAGE, "w7")).images[0].place is Place.ENCODED
        async with AsyncClient(server=stack.decoder_address, token=people.tokens["lab"], retry=ONCE) as lab:
            with pytest.raises(MissingImages):
                await lab.ask(Image(sha256=DIGEST), "w7")


async def test_a_decoder_with_tenants_and_no_credential_does_not_start(tmp_path: Path) -> None:
    people = make_people(tmp_path)
    with pytest.raises(StartupError) as caught:
        async with deployed(people, None, encoder_token_file=None):
            pass
    assert "`encoder_tls_cert_file`" in caught.value.message
    assert "`encoder_token_file`" in caught.value.message


async def test_one_tenant_alone_needs_none(tmp_path: Path) -> None:
    people = IdentitiesFile(tmp_path)
    people.add("web")
    async with (
        in_process_stack(decoder={"identities_file": people.path}) as stack,
        AsyncClient(server=stack.decoder_address, token=people.tokens["web"]) as client,
    ):
        assert (await client.ask(IMAGE, "w7")).images[0].place is Place.ENCODED


async def test_who_is_taken_out_of_the_file_is_refused_while_the_service_runs(tmp_path: Path) -> None:
    people = make_people(tmp_path)
    async with deployed(people, None) as deployment, deployment.client("lab") as lab, deployment.client("web") as web:
        await lab.describe()
        people.remove("lab")

        async def shut_out() -> bool:
            try:
                await lab.describe()
            except Unauthenticated:
                return True
            return False

        await until(shut_out)
        await web.describe()
