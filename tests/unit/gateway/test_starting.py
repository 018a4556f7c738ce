"""What keeps a gateway from starting, and what it needs to be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway_service.config import GatewaySettings
from gateway_service.http_errors import _FORMS, error_body, error_response, status_of
from gateway_service.wiring import check_open
from vscan.config import load_settings
from vscan.errors import InternalError, MissingImages, ResourceExhausted, StartupError
from vscan.rpc.error_details import FROM_DETAIL

TLS: dict[str, Any] = {"tls_cert_file": Path("c.pem"), "tls_key_file": Path("k.pem")}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"bind": "0.0.0.0:8000"}, "plaintext"),
        ({"bind": "0.0.0.0:8000", **TLS}, "anybody could call"),
        ({"bind": "0.0.0.0:8000", "require_token": True}, "plaintext"),
        ({"max_bodies_bytes": 2048}, "max_body_bytes"),
    ],
)
def test_an_open_port_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(StartupError, match=said):
        check_open(GatewaySettings(**settings))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bind": "0.0.0.0:8000", "insecure": True},
        {"bind": "0.0.0.0:8000", "require_token": True, **TLS},
        {"bind": "0.0.0.0:8000", "allow_anonymous": True, **TLS},
        {"bind": "0.0.0.0:8000", "tls_client_ca_file": Path("ca.pem"), **TLS},
    ],
)
def test_a_word_on_who_may_call_opens_it(settings: dict[str, Any]) -> None:
    check_open(GatewaySettings(**settings))


def test_several_decoders_are_given_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSCAN_GATEWAY_DECODER_ADDRESS", "10.0.0.1:7070, 10.0.0.2:7070")
    assert load_settings(GatewaySettings).decoder_address == ("10.0.0.1:7070", "10.0.0.2:7070")


def test_every_error_that_travels_has_a_status() -> None:
    kinds = {name for form in _FORMS for name in [form.__name__]} | {"VScanError", "MissingImages"}
    assert kinds == set(FROM_DETAIL)
    assert status_of(MissingImages([bytes(32)])) == 400
    assert error_body(InternalError("internal error", trace_id="ab"))["error"]["trace_id"] == "ab"


def test_a_retry_delay_is_told_in_whole_seconds_and_in_milliseconds() -> None:
    headers = error_response(ResourceExhausted("busy", retry_delay_ms=1200)).headers
    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1200")


def test_it_needs_no_torch() -> None:
    told = "import sys, gateway_service.__main__; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True).stdout.strip() == "[]"
