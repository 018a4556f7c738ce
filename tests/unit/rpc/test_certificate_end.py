"""When certificates end, as a library that knows all of X.509 reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tests.support.certificates import Authority
from vscan.rpc.certificate_end import first_end


@pytest.mark.parametrize("end", ["2026-02-28T23:59:59", "2049-12-31T23:59:59", "2050-01-01T00:00:00", "2099-06-01T12:00:00"])
def test_the_end_is_read(end: str, tmp_path: Path) -> None:
    """From 2050 on it is written with four digits of the year."""
    ends = datetime.fromisoformat(end).replace(tzinfo=UTC)
    begins = ends - timedelta(days=30)
    issued = Authority(tmp_path).issue_server("localhost", valid_from=begins - datetime.now(UTC), valid_for=ends - begins)
    wanted = x509.load_pem_x509_certificate(issued.cert_file.read_bytes()).not_valid_after_utc
    assert first_end(issued.cert_file) == wanted.timestamp()
    assert abs(wanted - ends) <= timedelta(seconds=2)


def test_of_a_chain_the_first_end_counts(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    days = [authority.issue_server("a", valid_from=timedelta(0), valid_for=timedelta(days=left)) for left in (30, 3)]
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"about it\n" + days[0].cert_file.read_bytes() + days[1].cert_file.read_bytes())
    assert first_end(chain) == first_end(days[1].cert_file)


@pytest.mark.parametrize("kept", [0, 5, 40, 60])
def test_what_is_none_is_said(kept: int, tmp_path: Path) -> None:
    pem = Authority(tmp_path).issue("localhost").cert_file.read_text().splitlines()
    cut = tmp_path / "cut.pem"
    cut.write_text("\n".join([pem[0], pem[1][:kept], pem[-1]]) if kept else "no certificate")
    with pytest.raises(ValueError):
        first_end(cut)
