"""Settings of the cache, the same for both services."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from vscan.cache.redis_address import Topology, parse_redis_url
from vscan.errors import StartupError

MIN_SECRET_BYTES = 16


class CacheSettings(BaseModel):
    """A mixin for a service's settings. Check it with `check_cache_settings` at startup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,  # it may hold a password
        description="URL of Redis, an ACL user in it if needed: redis://, rediss:// (TLS) or unix://; "
        "redis+sentinel://HOST:PORT,HOST:PORT/NAME; redis+cluster://HOST:PORT,HOST:PORT; rediss+… is TLS. Empty: memory only.",
    )
    redis_password_file: Path | None = Field(
        default=None, description="File with the Redis password, instead of one in the URL. A newline at its end is ignored."
    )
    redis_sentinel_username: str | None = Field(default=None, description="ACL user at the Sentinels, if they ask for one.")
    redis_sentinel_password_file: Path | None = Field(
        default=None, description="File with the password of the Sentinels, which is not that of the Redis they watch."
    )
    redis_tls_ca_file: Path | None = Field(
        default=None, description="CA certificates (PEM) that a rediss:// server is checked against, beside the system's."
    )
    redis_tls_cert_file: Path | None = Field(
        default=None, description="Client certificate (PEM) for a rediss:// server that asks for one."
    )
    redis_tls_key_file: Path | None = Field(default=None, description="Key (PEM) of the client certificate.")
    redis_timeout_ms: int = Field(
        # Not shorter: on a busy CPU the event loop itself may be late, and that would pass for a slow Redis.
        default=500,
        gt=0,
        description="Longest that a request waits for one Redis operation, connecting included, in milliseconds; when it reads "
        "several entries at once, so long for each entry asked for.",
    )
    redis_connections: int = Field(default=16, gt=0, description="Most connections to Redis, of a Cluster to each node.")
    redis_breaker_faults: int = Field(
        default=3,
        gt=0,
        description="Redis faults in a row, of reads or of writes, after which Redis is not asked for these for a while.",
    )
    redis_breaker_pause_ms: int = Field(
        default=2000, gt=0, description="How long Redis is left alone before one request tries it again, in milliseconds."
    )
    cache_ttl_seconds: int = Field(
        default=86_400, gt=0, le=2**31 - 1, description="How long Redis keeps an entry after it was written, in seconds."
    )
    cache_memory_bytes: int = Field(
        default=256 * 2**20, ge=0, description="Bound of the cache in this process's memory, in bytes. 0: no memory tier."
    )
    cache_secret_file: Path | None = Field(
        default=None,
        description="File with the secret that seals cache entries (HMAC-SHA-256), at least 16 bytes, the same for encoder and "
        "decoder. Needed for a Redis beyond loopback, Sentinels and Clusters.",
    )
    cache_allow_unsigned: bool = Field(
        default=False,
        description="Allow a Redis beyond loopback without a cache secret. Whoever can write to it can then forge images.",
    )


def check_cache_settings(settings: CacheSettings) -> None:
    """Refuses what is not safe or cannot work, before anything starts. Does not connect: Redis may be away at start.

    Raises:
        StartupError: one line that names the setting, and never shows the URL or a secret.
    """
    for name in ("redis_password_file", "redis_sentinel_password_file"):
        secret: Path | None = getattr(settings, name)
        if secret is not None:
            read_secret(secret, name)
    if settings.redis_sentinel_username and settings.redis_sentinel_password_file is None:
        raise StartupError("redis_sentinel_username: needs `redis_sentinel_password_file`")
    for name in ("redis_tls_ca_file", "redis_tls_cert_file", "redis_tls_key_file"):
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            raise StartupError(f"{name}: {path} is not a file")
    if settings.redis_url:
        _check_url(settings)
    cache_secret(settings)


def cache_secret(settings: CacheSettings) -> bytes | None:
    """The secret that seals entries. Raises StartupError if its file is unreadable or the secret is short."""
    if settings.cache_secret_file is None:
        return None
    secret = read_secret(settings.cache_secret_file, "cache_secret_file")
    if len(secret) < MIN_SECRET_BYTES:
        raise StartupError(f"cache_secret_file: {len(secret)} bytes, at least {MIN_SECRET_BYTES} are needed")
    return secret


def read_secret(path: Path, setting: str) -> bytes:
    """A file's bytes without the newline at the end. Raises StartupError naming the setting."""
    try:
        secret = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise StartupError(f"{setting}: {path} cannot be read: {error.strerror}") from error
    if not secret:
        raise StartupError(f"{setting}: {path} is empty")
    return secret


def _check_url(settings: CacheSettings) -> None:
    try:
        address = parse_redis_url(settings.redis_url)
    except ValueError as error:
        raise StartupError(f"redis_url: {error}") from error
    if not address.is_local and settings.cache_secret_file is None and not settings.cache_allow_unsigned:
        raise StartupError(
            "redis_url: a Redis beyond loopback, Sentinels and Clusters need cache_secret_file (or cache_allow_unsigned)"
        )
    if address.topology is not Topology.SENTINEL and settings.redis_sentinel_password_file:
        raise StartupError("redis_sentinel_password_file: `redis_url` names no Sentinels")
    if not address.tls and (settings.redis_tls_ca_file or settings.redis_tls_cert_file or settings.redis_tls_key_file):
        raise StartupError("redis_url: speaks no TLS, and yet there are certificates for it: use rediss://")
    if bool(settings.redis_tls_cert_file) != bool(settings.redis_tls_key_file):
        raise StartupError("redis_tls_cert_file: certificate and key go together")
