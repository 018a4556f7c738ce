"""The cache's Redis tier with Debian's Redis 7, over TLS and as a user who may touch the cache's keys alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from opentelemetry.trace import INVALID_SPAN
from redis.asyncio import Redis

from tests.support.caches import open_cache, secret_file, tiered_cache
from tests.support.openssl_authority import Authority
from tests.support.redis_server import RedisServer, free_port
from tests.support.redis_topologies import RedisClusterServers, running
from tests.support.visual_values import body_of, key, make_tokens, same
from vscan.cache.lease import Lease, RedisLeases, Standing, entry_name
from vscan.cache.memory import MemoryCache
from vscan.cache.place import Place
from vscan.cache.recorder import Outcome, Tier
from vscan.cache.redis import KEY_PREFIX
from vscan.cache.tiers import TieredCache

pytestmark = pytest.mark.system

DEBIAN_REDIS = "/usr/bin/redis-server"
PASSWORD = "only-for-this-test"
# All that the services ask of Redis: docs and manifests can grant this and no more.
COMMANDS = "+mget +exists +unlink +set +eval +get +del +pexpire +pttl"
CLUSTER_COMMANDS = f"{COMMANDS} +cluster|slots +command"
VALUE = make_tokens(7)


def user(commands: str) -> str:
    """The line of an ACL file, as docs/cache.md has it."""
    return f"user vscan on >{PASSWORD} ~vscan:* resetchannels -@all {commands}"


class TlsRedis(RedisServer):
    """Serves the cache over TLS; its plain port answers nobody who has no password."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority")
        certificate = self.authority.issue("redis", addresses=["127.0.0.1"])
        users = folder / "users.acl"
        users.write_text(f"user default off\n{user(COMMANDS)}\n")
        self.tls_port = free_port()
        options = ["--tls-port", str(self.tls_port), "--tls-auth-clients", "no", "--aclfile", str(users)]
        options += ["--tls-cert-file", str(certificate.cert_file), "--tls-key-file", str(certificate.key_file)]
        super().__init__(options=[*options, "--tls-ca-cert-file", str(self.authority.ca_file)], program=DEBIAN_REDIS)

    @property
    def url(self) -> str:
        """Without the password: that comes from a file."""
        return f"rediss://vscan@127.0.0.1:{self.tls_port}/0"


@pytest.fixture(scope="module")
def tls_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    server = TlsRedis(tmp_path_factory.mktemp("tls"))
    with server:
        yield server


@pytest.fixture
def settings(tls_redis: TlsRedis, tmp_path: Path) -> dict[str, Any]:
    """What a service that may use this Redis is told."""
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    return {
        "redis_password_file": password,
        "redis_tls_ca_file": tls_redis.authority.ca_file,
        "cache_secret_file": secret_file(tmp_path),
    }


def _password_client(server: TlsRedis) -> redis.Redis:
    return redis.Redis(
        host="127.0.0.1",
        port=server.tls_port,
        username="vscan",
        password=PASSWORD,
        ssl=True,
        ssl_ca_certs=str(server.authority.ca_file),
    )


async def test_both_tiers_work(tls_redis: TlsRedis, settings: dict[str, Any]) -> None:
    async with tiered_cache(tls_redis, **settings) as (writer, writes), tiered_cache(tls_redis, **settings) as (reader, reads):
        await writer.put(key("tls"), VALUE)
        assert await reader.locate(key("tls")) is Place.REDIS
        hit = await reader.get(key("tls"))
        assert await reader.get(key("absent")) is None
    assert hit is not None
    assert hit.place is Place.REDIS
    assert same(hit.value, VALUE)
    assert writes.writes == {(Tier.MEMORY, Outcome.OK): 1, (Tier.REDIS, Outcome.OK): 1}
    assert (Tier.REDIS, Outcome.ERROR) not in reads.lookups


async def test_leases_work_too(tls_redis: TlsRedis, settings: dict[str, Any]) -> None:
    async with tiered_cache(tls_redis, **settings) as (cache, counts):
        await lead_and_write(cache, key("led"))
    assert counts.errors == {}


async def lead_and_write(cache: TieredCache, name: bytes) -> None:
    """Takes a lease, renews it, writes under it, and takes and gives back another one."""
    assert cache.redis is not None
    leases = RedisLeases(cache.redis.link, lease_seconds=600)
    lease, other = Lease.of(name), Lease.of(key(f"other {name.hex()}"))
    assert await leases.join(lease, INVALID_SPAN) is Standing.LEADS
    assert await leases.renew(lease)
    assert await cache.redis.put(name, body_of(VALUE), lease)
    assert await leases.join(other, INVALID_SPAN) is Standing.LEADS
    await leases.release(other)
    assert await leases.join(Lease.of(other.key), INVALID_SPAN) is Standing.LEADS


async def test_a_cluster_works_over_tls_as_a_user_who_may_do_nothing_else(
    tls_redis: TlsRedis, settings: dict[str, Any], tmp_path: Path
) -> None:
    """The nodes' plain ports, over which the test sets the Cluster up, answer its administrator alone."""
    certificate = tls_redis.authority.issue("cluster", addresses=["127.0.0.1"])
    users = tmp_path / "cluster.acl"
    users.write_text(f"user default on nopass ~* &* +@all\n{user(CLUSTER_COMMANDS)}\n")
    options = ["--tls-auth-clients", "no", "--aclfile", str(users), "--tls-cert-file", str(certificate.cert_file)]
    options += ["--tls-key-file", str(certificate.key_file), "--tls-ca-cert-file", str(tls_redis.authority.ca_file)]
    cluster = RedisClusterServers(tmp_path, tls=options, program=DEBIAN_REDIS)
    names = [key(f"cluster {n}") for n in range(12)]
    with running(cluster):
        async with open_cache(f"rediss+cluster://vscan@{cluster.places}", **settings) as (cache, counts):
            tiers = TieredCache(MemoryCache(0), cache)
            for name in names:
                await lead_and_write(tiers, name)
            assert all(same(value, VALUE) for value in await cache.get_many(names))
            assert await cache.has_many(names) == [True] * len(names)
            await cache.link.client.unlink([entry_name(name) for name in names])
            assert await cache.has_many(names) == [False] * len(names)
    assert counts.errors == {}


async def test_an_entry_that_was_tampered_with_is_rejected_and_deleted(tls_redis: TlsRedis, settings: dict[str, Any]) -> None:
    name = KEY_PREFIX + key("spoilt").hex()
    async with tiered_cache(tls_redis, **settings) as (writer, _):
        await writer.put(key("spoilt"), VALUE)
    with _password_client(tls_redis) as client:
        client.set(name, b"not an entry")
        async with tiered_cache(tls_redis, **settings) as (reader, counts):
            assert await reader.get(key("spoilt")) is None
        assert client.exists(name) == 0
    assert counts.lookups[Tier.REDIS, Outcome.BAD_ENTRY] == 1


async def test_a_server_that_the_ca_did_not_sign_is_not_talked_to(
    tls_redis: TlsRedis, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["redis_tls_ca_file"] = Authority(tmp_path / "stranger").ca_file
    async with tiered_cache(tls_redis, **settings) as (cache, counts):
        await cache.put(key("stranger"), VALUE)
        assert await cache.locate(key("stranger")) is Place.MEMORY  # the answer goes on without Redis
    assert counts.writes[Tier.REDIS, Outcome.ERROR] == 1


async def test_a_wrong_password_is_a_fault_of_redis_and_of_no_request(
    tls_redis: TlsRedis, settings: dict[str, Any], tmp_path: Path
) -> None:
    settings["redis_password_file"] = tmp_path / "wrong"
    settings["redis_password_file"].write_text("wrong")
    async with tiered_cache(tls_redis, **settings) as (cache, counts):
        assert await cache.get(key("tls")) is None
    assert counts.lookups[Tier.REDIS, Outcome.ERROR] == 1


async def test_the_user_may_do_nothing_else(tls_redis: TlsRedis) -> None:
    with _password_client(tls_redis) as client:
        assert client.exists(KEY_PREFIX + "00") == 0
        for forbidden in (["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["SET", "other", "1"]):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*forbidden)


async def test_plaintext_is_not_answered(tls_redis: TlsRedis) -> None:
    plain = Redis.from_url(f"redis://127.0.0.1:{tls_redis.tls_port}/0", socket_timeout=30)
    with pytest.raises(redis.exceptions.ConnectionError):
        await plain.execute_command("PING")
    await plain.aclose()


async def test_rotated_certificates_and_passwords_are_followed(tmp_path: Path) -> None:
    """Redis comes back with another CA for itself and for its clients, and with another password for them."""
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    own = [authority.issue("vscan", addresses=["127.0.0.1"]) for authority in (old, new)]
    ca, cert, client_key, password = (tmp_path / name for name in ("ca.pem", "tls.crt", "tls.key", "password"))

    def mount(authority: Authority, certificate: Any, secret: str) -> None:
        for path, content in (
            (ca, authority.ca_file.read_text()),
            (cert, certificate.cert_file.read_text()),
            (password, secret),
            (client_key, certificate.key_file.read_text()),
        ):
            path.with_suffix(".new").write_text(content)
            path.with_suffix(".new").replace(path)

    def options(authority: Authority, certificate: Any, secret: str) -> list[str]:
        users = tmp_path / f"{secret}.acl"
        users.write_text(f"user default on >{secret} ~* &* +@all\n")
        return [
            *("--tls-port", str(tls_port), "--tls-auth-clients", "yes", "--aclfile", str(users)),
            *("--tls-cert-file", str(certificate.cert_file), "--tls-key-file", str(certificate.key_file)),
            *("--tls-ca-cert-file", str(authority.ca_file)),
        ]

    tls_port = free_port()
    server = RedisServer(options=options(old, own[0], "one"), program=DEBIAN_REDIS)
    mount(old, own[0], "one")
    settings: dict[str, Any] = {
        "redis_url": f"rediss://127.0.0.1:{tls_port}/0",
        "redis_password_file": password,
        "redis_tls_ca_file": ca,
        "redis_tls_cert_file": cert,
        "redis_tls_key_file": client_key,
        "redis_breaker_faults": 1000,
    }
    with server:
        async with tiered_cache(server, **settings) as (cache, counts):
            assert cache.redis is not None
            assert await cache.redis.put(key("before"), body_of(VALUE))
            server.kill()
            server.options = options(new, own[1], "two")
            server.start()
            assert not await cache.redis.put(key("between"), body_of(VALUE))  # still with the old ones
            errors = sum(counts.errors.values())
            assert errors > 0
            mount(new, own[1], "two")
            assert await cache.redis.put(key("after"), body_of(VALUE))
            assert sum(counts.errors.values()) == errors
