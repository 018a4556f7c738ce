"""Services on another host: plaintext is refused unless it is meant, TLS works, and loopback stays on that host."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from embedded_model.album import draw_album
from tests.support.network_namespace import NetworkNamespace
from tests.support.openssl_authority import Authority
from tests.support.service_process import SERVICES, ServiceProcess, health_of
from vscan.errors import InvalidArgument, Unavailable
from vscan_client import Client, Place, Retry, Tls

pytestmark = pytest.mark.system

COMMON = {"redis_url": "", "torch_threads": 1, "drain_seconds": 0}
# A decoder is away until it has found its encoder.
PATIENT = Retry(attempts=60, max_backoff_ms=500, budget=1000)
AT_ONCE = Retry(attempts=1)


@dataclass(frozen=True)
class FarDeployment:
    """An encoder and a decoder on the other host, speaking TLS with each other and with everybody."""

    decoder: ServiceProcess
    encoder: ServiceProcess
    authority: Authority

    def client(self, **changes: Any) -> Client:
        usual = {"server": self.decoder.address, "tls": Tls(ca_file=self.authority.ca_file), "retry": PATIENT}
        return Client(**{**usual, **changes})


@pytest.fixture(scope="module")
def far() -> Iterator[NetworkNamespace]:
    with NetworkNamespace() as namespace:
        yield namespace


@pytest.fixture(scope="module")
def deployment(far: NetworkNamespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarDeployment]:
    folder = tmp_path_factory.mktemp("far")
    authority = Authority(folder / "authority")
    certificate = authority.issue("services", addresses=[far.far_address])
    tls = {
        "bind": f"{far.far_address}:0",
        "tls_cert_file": certificate.cert_file,
        "tls_key_file": certificate.key_file,
        "allow_anonymous": True,
    }
    encoder = ServiceProcess("encoder", folder, {**COMMON, **tls}, run_in=far.command)
    decoder = ServiceProcess("decoder", folder, run_in=far.command)
    try:
        encoder.start()
        decoder.settings = {
            **COMMON,
            **tls,
            "encoder_address": encoder.address,
            "encoder_tls": True,
            "encoder_tls_ca_file": authority.ca_file,
        }
        decoder.start()
        yield FarDeployment(decoder, encoder, authority)
    finally:
        decoder.stop()
        encoder.stop()


def _run(far: NetworkNamespace, kind: str, **settings: str) -> subprocess.CompletedProcess[str]:
    variables = [f"VSCAN_{kind.upper()}_{name.upper()}={value}" for name, value in settings.items()]
    command = [*far.command, "env", *variables, sys.executable, "-m", f"{kind}_service"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("kind", SERVICES)
@pytest.mark.parametrize("every_address", [False, True])
def test_plaintext_beyond_loopback_is_refused_in_one_line(far: NetworkNamespace, kind: str, every_address: bool) -> None:
    done = _run(far, kind, bind="0.0.0.0:7099" if every_address else f"{far.far_address}:7099", redis_url="")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "plaintext" in line
    assert f"VSCAN_{kind.upper()}_TLS_CERT_FILE" in line
    assert f"VSCAN_{kind.upper()}_INSECURE" in line


def test_a_decoder_does_not_speak_plaintext_to_a_far_encoder(far: NetworkNamespace) -> None:
    done = _run(far, "decoder", bind="127.0.0.1:0", redis_url="", encoder_address=f"{far.near_address}:7071")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "VSCAN_DECODER_ENCODER_" in line


def test_a_question_is_answered_over_tls(deployment: FarDeployment) -> None:
    (picture,) = draw_album(3, pictures=1, questions=1)
    with deployment.client() as client:
        answers = [client.ask(picture.png(), picture.questions[0].text) for _ in range(2)]
    assert [answer.images[0].place for answer in answers] == [Place.ENCODED, Place.MEMORY]
    assert answers[0].text == answers[1].text != ""


def test_the_encoder_answers_over_tls_too(deployment: FarDeployment) -> None:
    (picture,) = draw_album(4, pictures=1, questions=1)
    with deployment.client(encoder=deployment.encoder.address) as client:
        encoded = client.encode(picture.png())
    assert encoded.image.tokens_after < encoded.image.tokens_before


def test_plaintext_to_a_tls_port_gets_nowhere(deployment: FarDeployment) -> None:
    with deployment.client(tls=None, insecure=True, retry=AT_ONCE) as client, pytest.raises(Unavailable):
        client.describe()


def test_a_client_needs_a_word_to_speak_plaintext_beyond_loopback(deployment: FarDeployment) -> None:
    with pytest.raises(InvalidArgument, match="plaintext"), deployment.client(tls=None) as client:
        client.describe()


def test_a_client_that_trusts_another_authority_does_not_talk(deployment: FarDeployment, tmp_path: Path) -> None:
    stranger = Tls(ca_file=Authority(tmp_path).ca_file)
    with deployment.client(tls=stranger, retry=AT_ONCE) as client, pytest.raises(Unavailable):
        client.describe()


def test_plaintext_that_is_meant_works(far: NetworkNamespace, tmp_path: Path) -> None:
    encoder = ServiceProcess(
        "encoder", tmp_path, {**COMMON, "bind": f"{far.far_address}:0", "insecure": True}, run_in=far.command
    )
    try:
        encoder.start()
        encoder.wait_ready()
    finally:
        assert encoder.stop() == 0


def test_a_service_on_loopback_is_not_reached_from_outside(far: NetworkNamespace, tmp_path: Path) -> None:
    encoder = ServiceProcess("encoder", tmp_path, COMMON, run_in=far.command)
    try:
        encoder.start()
        port = encoder.address.rpartition(":")[2]
        assert encoder.address == f"127.0.0.1:{port}"
        for address in (f"{far.far_address}:{port}", encoder.address):
            assert health_of(address, SERVICES["encoder"])[0] is False
    finally:
        encoder.stop()
