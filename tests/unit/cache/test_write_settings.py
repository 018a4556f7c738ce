"""How an encoder writes entries is set by name, and a bad value stops startup with the variable's name."""

from __future__ import annotations

import pytest

from encoder_service.config import EncoderSettings
from vscan.cache.body import BodyCodec
from vscan.config import load_settings
from vscan.errors import StartupError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_SECONDS", "-1"),
        ("LEASE_SECONDS", "inf"),
        ("LEASE_SECONDS", "3601"),
        ("CACHE_TTL_SECONDS", "2147483648"),
        ("CACHE_COMPRESSION", "gzip"),
        ("CACHE_COMPRESSION_LEVEL", "0"),
        ("CACHE_COMPRESSION_LEVEL", "20"),
        ("CACHE_TOKENS", "int8"),
    ],
)
def test_a_bad_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"VSCAN_ENCODER_{name}", value)
    with pytest.raises(StartupError, match=f"VSCAN_ENCODER_{name}"):
        load_settings(EncoderSettings)


@pytest.mark.parametrize(
    ("settings", "codec"),
    [
        ({}, BodyCodec()),
        ({"cache_compression": "zstd"}, BodyCodec(zstd_level=3)),
        ({"cache_compression": "zstd", "cache_compression_level": 9}, BodyCodec(zstd_level=9)),
        ({"cache_tokens": "float8"}, BodyCodec(float8=True)),
    ],
)
def test_settings_choose_the_codec(settings: dict[str, object], codec: BodyCodec) -> None:
    assert load_settings(EncoderSettings, settings).body_codec == codec
