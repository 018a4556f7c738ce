"""The values given to a client's constructor."""

from pathlib import Path

import pytest

from vscan_client import Retry, Timeout, Tls


@pytest.mark.parametrize("bad", [{"total": 0}, {"total": -1.0}, {"total": float("nan")}, {"connect": 0}])
def test_a_timeout_is_over_zero(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="over 0"):
        Timeout(**bad)


@pytest.mark.parametrize(
    "bad", [{"attempts": 0}, {"backoff_ms": -1}, {"backoff_ms": 10, "max_backoff_ms": 5}, {"jitter": 1.5}, {"budget": -1}]
)
def test_retries_are_bounded(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Retry(**bad)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Tls(cert_file=Path("cert.pem"))
