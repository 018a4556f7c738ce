"""Opens a Redis client as the settings say."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from vscan.cache.settings import CacheSettings, read_secret


def open_client(settings: CacheSettings) -> Redis:
    """A client of `redis_url`, with password and certificates from their files; connects on first use.

    It has no deadlines of its own: whoever uses it sets one around each operation, the wait for a connection included.
    """
    options = {name: str(path) for name, path in _tls_files(settings).items() if path}
    if settings.redis_password_file:
        options["password"] = read_secret(settings.redis_password_file, "redis_password_file").decode()
    pool = BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=settings.redis_connections,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        # A connection that a restarted Redis left half open costs one more try, not a fault.
        retry=Retry(NoBackoff(), 1),
        protocol=2,  # the commands used here gain nothing from RESP3, and RESP2 saves a round trip
        **options,
    )
    return Redis.from_pool(pool)


def _tls_files(settings: CacheSettings) -> dict[str, object]:
    return {
        "ssl_ca_certs": settings.redis_tls_ca_file,
        "ssl_certfile": settings.redis_tls_cert_file,
        "ssl_keyfile": settings.redis_tls_key_file,
    }
