"""Which Redis a URL means; and a bad one is refused with a reason that shows none of its secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from vscan.cache.redis_address import RedisAddress, Topology, has_password, parse_redis_url
from vscan.cache.redis_client import open_client
from vscan.cache.settings import CacheSettings, check_cache_settings
from vscan.errors import StartupError
from vscan.rpc.address import Address

SENTINEL, CLUSTER = Topology.SENTINEL, Topology.CLUSTER
SENTINEL_URL = "redis+sentinel://127.0.0.1:26379,127.0.0.2:26380/vscan"


def file(path: Path, text: str = "0123456789abcdef") -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "redis+sentinel://one:1,two,[::1]:3,[::2]/main/5",
            RedisAddress(
                SENTINEL,
                (Address("one", 1), Address("two", 26379), Address("::1", 3), Address("::2", 26379)),
                service="main",
                db=5,
            ),
        ),
        ("redis+sentinel://one/main", RedisAddress(SENTINEL, (Address("one", 26379),), service="main")),
        ("rediss+sentinel://one/main/", RedisAddress(SENTINEL, (Address("one", 26379),), tls=True, service="main")),
        ("redis+cluster://one,two:7", RedisAddress(CLUSTER, (Address("one", 6379), Address("two", 7)))),
        ("rediss+cluster://one/0", RedisAddress(CLUSTER, (Address("one", 6379),), tls=True)),
        (
            "redis+cluster://us%40er:p%2Fw@one",
            RedisAddress(CLUSTER, (Address("one", 6379),), username="us@er", password="p/w"),
        ),
        ("redis+cluster://:pw@one", RedisAddress(CLUSTER, (Address("one", 6379),), password="pw")),
        ("redis+cluster://user@one", RedisAddress(CLUSTER, (Address("one", 6379),), username="user")),
    ],
)
def test_a_url_says_topology_nodes_and_who(url: str, expected: RedisAddress) -> None:
    assert parse_redis_url(url) == expected


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://u:hunter2@one", "name of the Sentinels' master"),
        ("redis+sentinel://u:hunter2@one/", "name of the Sentinels' master"),
        ("redis+sentinel://u:hunter2@one/a/b/c", "name of the Sentinels' master"),
        ("redis+sentinel://u:hunter2@one/main/first", "database"),
        ("redis+cluster://u:hunter2@one/3", "database 0"),
        ("redis+cluster://u:hunter2@", "no host"),
        ("redis+cluster://u:hunter2@one,two:port", "host 2"),
        ("redis+cluster://u:hunter2@one,,two", "host 2"),
        ("redis+cluster://u:hunter2@one?ssl=true", "query"),
        ("redis+ring://u:hunter2@one", "scheme"),
        ("unix+cluster://u:hunter2@one", "scheme"),
        ("http+cluster://u:hunter2@one", "scheme"),
        ("u:hunter2@one", "not a URL"),
    ],
)
def test_a_bad_url_is_refused_with_the_reason(url: str, why: str) -> None:
    with pytest.raises(StartupError, match=why) as caught:
        check_cache_settings(CacheSettings(redis_url=url, cache_allow_unsigned=True))
    assert "redis_url" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(parse_redis_url("redis+cluster://u:hunter2@one"))


@pytest.mark.parametrize("url", [SENTINEL_URL, "redis+cluster://127.0.0.1"])
def test_who_names_further_servers_counts_as_remote(url: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cache_secret_file"):
        check_cache_settings(CacheSettings(redis_url=url))
    check_cache_settings(CacheSettings(redis_url=url, cache_secret_file=file(tmp_path / "secret")))


@pytest.mark.parametrize(
    ("url", "setting", "why"),
    [
        ("redis://127.0.0.1", "redis_sentinel_password_file", "names no Sentinels"),
        ("redis://127.0.0.1", "redis_tls_ca_file", "speaks no TLS"),
        (SENTINEL_URL, "redis_tls_ca_file", "speaks no TLS"),
        ("rediss://127.0.0.1", "redis_tls_cert_file", "go together"),
        ("rediss://127.0.0.1", "redis_tls_key_file", "go together"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(url: str, setting: str, why: str, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {setting: file(tmp_path / "secret")}
    with pytest.raises(StartupError, match=why):
        check_cache_settings(CacheSettings(redis_url=url, cache_allow_unsigned=True, **chosen))


def test_a_user_at_the_sentinels_needs_a_password() -> None:
    with pytest.raises(StartupError, match="redis_sentinel_password_file"):
        check_cache_settings(CacheSettings(redis_url=SENTINEL_URL, cache_allow_unsigned=True, redis_sentinel_username="me"))


@pytest.mark.parametrize(
    "url", ["rediss://user@127.0.0.1", "rediss+sentinel://user@127.0.0.1/vscan", "rediss+cluster://user@127.0.0.1"]
)
async def test_user_password_and_certificates_reach_the_client(url: str, tmp_path: Path) -> None:
    password, ca = file(tmp_path / "password", "pw\n"), file(tmp_path / "ca.pem")
    client = open_client(CacheSettings(redis_url=url, redis_password_file=password, redis_tls_ca_file=ca))
    try:
        if isinstance(client.redis, RedisCluster):
            options: dict[str, Any] = client.redis.nodes_manager.connection_kwargs
        else:
            assert isinstance(client.redis, Redis)
            options = client.redis.connection_pool.connection_kwargs
        assert (options["username"], options["password"]) == ("user", "pw")
        assert options["ssl_ca_certs"] == str(ca)
    finally:
        await client.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden@h/0",
        "redis://user:hidden@h",
        "rediss://h/0?password=hidden",
        "redis://h?db=1&password=hidden",
        "unix://:hidden@/path",
        "redis+cluster://user:hidden@h:1,h:2",
        "nonsense://user:hidden@",
        "redis://user:hid@den@h",
    ],
)
def test_a_url_with_a_password(url: str) -> None:
    assert has_password(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "redis://h:6379/0",
        "redis://user@h",
        "redis://[::1]:6379",
        "unix:///path?db=1",
        "redis+sentinel://user@h:1/n",
    ],
)
def test_a_url_without_one(url: str) -> None:
    assert not has_password(url)
