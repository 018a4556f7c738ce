"""Settings that are not safe, or cannot work, stop startup with a line that names them and tells no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import SettingsConfigDict

from vscan.cache.settings import CacheSettings, cache_secret, check_cache_settings
from vscan.config import ServiceSettings, load_settings
from vscan.errors import StartupError


class SomeSettings(CacheSettings, ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="VSCAN_TEST_")


def secret_file(folder: Path, text: str = "0123456789abcdef") -> Path:
    path = folder / "secret"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://127.0.0.1:6379/0",
        "redis://localhost",
        "redis://[::1]:7000/2",
        "rediss://user:pass@127.0.0.5:6380/0",
        "unix:///run/redis.sock",
    ],
)
def test_a_redis_on_this_machine_needs_no_secret(url: str) -> None:
    check_cache_settings(CacheSettings(redis_url=url))


@pytest.mark.parametrize(
    "url", ["redis://10.0.0.3:6379/0", "rediss://redis.example:6380", "redis://user:hunter2@[2001:db8::1]/0"]
)
def test_a_redis_beyond_loopback_needs_one(url: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cache_secret_file") as caught:
        check_cache_settings(CacheSettings(redis_url=url))
    assert "hunter2" not in str(caught.value)
    check_cache_settings(CacheSettings(redis_url=url, cache_secret_file=secret_file(tmp_path)))
    check_cache_settings(CacheSettings(redis_url=url, cache_allow_unsigned=True))


@pytest.mark.parametrize(
    "url", ["http://user:hunter2@127.0.0.1", "redis://", "redis://user:hunter2@127.0.0.1:port", "redis://[:hunter2", "hunter2"]
)
def test_a_bad_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(StartupError, match="redis_url") as caught:
        check_cache_settings(CacheSettings(redis_url=url))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("setting", ["cache_secret_file", "redis_password_file"])
def test_an_unreadable_or_empty_secret_is_refused(setting: str, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {setting: tmp_path / "absent"}
    with pytest.raises(StartupError, match=setting):
        check_cache_settings(CacheSettings(**chosen))
    chosen = {setting: secret_file(tmp_path, "\n")}
    with pytest.raises(StartupError, match=setting):
        check_cache_settings(CacheSettings(**chosen))


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="at least 16"):
        check_cache_settings(CacheSettings(cache_secret_file=secret_file(tmp_path, "0123456789abcde")))


def test_a_newline_at_the_end_is_no_part_of_the_secret(tmp_path: Path) -> None:
    settings = CacheSettings(cache_secret_file=secret_file(tmp_path, "0123456789abcdef\n"))
    assert cache_secret(settings) == b"0123456789abcdef"


@pytest.mark.parametrize("setting", ["redis_tls_ca_file", "redis_tls_cert_file", "redis_tls_key_file"])
def test_a_missing_tls_file_is_refused(setting: str, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {setting: tmp_path / "absent.pem"}
    with pytest.raises(StartupError, match=setting):
        check_cache_settings(CacheSettings(**chosen))


def test_the_url_is_not_shown_with_the_settings() -> None:
    assert "hunter2" not in repr(CacheSettings(redis_url="redis://user:hunter2@127.0.0.1/0"))


def test_it_mixes_into_a_service_and_reads_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_TEST_REDIS_URL", "redis://127.0.0.1:1234/5")
    monkeypatch.setenv("VSCAN_TEST_CACHE_TTL_SECONDS", "60")
    settings = load_settings(SomeSettings)
    assert (settings.redis_url, settings.cache_ttl_seconds) == ("redis://127.0.0.1:1234/5", 60)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_TIMEOUT_MS", "0"),
        ("CACHE_TTL_SECONDS", "-1"),
        ("CACHE_MEMORY_BYTES", "-1"),
        ("REDIS_CONNECTIONS", "none"),
        ("REDIS_BREAKER_FAULTS", "0"),
        ("REDIS_BREAKER_PAUSE_MS", "0"),
    ],
)
def test_a_value_out_of_range_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"VSCAN_TEST_{name}", value)
    with pytest.raises(StartupError, match=f"VSCAN_TEST_{name}"):
        load_settings(SomeSettings)


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in CacheSettings.model_fields.values())
