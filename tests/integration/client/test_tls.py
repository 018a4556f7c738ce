"""Encrypted channels."""

from pathlib import Path

import grpc
import pytest

from page_service.config import PageSettings
from tests.support.certificates import Authority, Mounted
from tests.support.client_cli import vscan
from tests.support.client_decoder import ScriptedDeployment, serving
from vscan.errors import InvalidArgument, Unavailable
from vscan_client import Client, Retry, Tls

ONCE = Retry(attempts=1)


def credentials(authority: Authority, *, clients: Authority | None = None) -> grpc.ServerCredentials:
    own = authority.issue("127.0.0.1")
    pair = (own.key_file.read_bytes(), own.cert_file.read_bytes())
    trusted = clients.ca_file.read_bytes() if clients else None
    return grpc.ssl_server_credentials([pair], trusted, require_client_auth=clients is not None)


def configuration(authority: Authority, *, clients: Authority) -> grpc.ServerCertificateConfiguration:
    own = authority.issue("127.0.0.1")
    pair = (own.key_file.read_bytes(), own.cert_file.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], clients.ca_file.read_bytes())


def test_a_server_whose_certificate_is_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "cat.png").write_bytes(b"cat")
    with serving(ScriptedDeployment(), credentials=credentials(authority)) as address:
        with Client(server=address, tls=Tls(ca_file=authority.ca_file)) as client:
            assert client.ask(b"cat", "what?").text == "1 image(s): what?"
        ran = vscan("ask", tmp_path / "cat.png", "what?", "--server", address, "--tls-ca", authority.ca_file)
        assert ran.out == "1 image(s): what?\n"


def test_a_server_that_is_not_trusted_is_not_asked(tmp_path: Path) -> None:
    deployment = ScriptedDeployment()
    with serving(deployment, credentials=credentials(Authority(tmp_path))) as address:
        for tls in (Tls(ca_file=Authority(tmp_path).ca_file), None):
            with Client(server=address, tls=tls, retry=ONCE) as client, pytest.raises(Unavailable):
                client.ask(b"cat", "what?")
    assert deployment.requests == []


def test_a_server_that_wants_to_know_its_clients(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("client@example.org")
    known = Tls(ca_file=authority.ca_file, cert_file=own.cert_file, key_file=own.key_file)
    (tmp_path / "cat.png").write_bytes(b"cat")
    with serving(ScriptedDeployment(), credentials=credentials(authority, clients=authority)) as address:
        with Client(server=address, tls=known) as client:
            assert client.ask(b"cat", "what?").text == "1 image(s): what?"
        options = ("--tls-ca", authority.ca_file, "--tls-cert", own.cert_file, "--tls-key", own.key_file)
        ran = vscan("ask", tmp_path / "cat.png", "what?", "--server", address, *options)
        assert ran.out == "1 image(s): what?\n", ran.err
        with Client(server=address, tls=Tls(ca_file=authority.ca_file), retry=ONCE) as client, pytest.raises(Unavailable):
            client.ask(b"cat", "what?")


def test_rotated_certificates_are_followed_by_a_client_that_stays(tmp_path: Path) -> None:
    """First the server's CA changes, then what the server wants of its clients."""
    old, new = Authority(tmp_path), Authority(tmp_path)
    mounted = Mounted(tmp_path, old.issue("client@example.org"), ca=old.ca_file)
    server = [configuration(old, clients=old)]
    rotating = grpc.dynamic_ssl_server_credentials(server[0], lambda: server[0], require_client_authentication=True)
    tls = Tls(ca_file=mounted.ca, cert_file=mounted.cert, key_file=mounted.key)
    with serving(ScriptedDeployment(), credentials=rotating) as address, Client(server=address, tls=tls) as client:
        assert client.ask(b"cat", "what?").text == "1 image(s): what?"
        server[0] = configuration(new, clients=new)
        certificate = new.issue("client@example.org")
        mounted.write(ca=new.ca_file, cert=certificate.cert_file)
        assert client.ask(b"cat", "who?").text == "1 image(s): who?"  # half a rotation: the connection that there is
        mounted.write(key=certificate.key_file)
        assert client.ask(b"cat", "where?").text == "1 image(s): where?"
        with Client(server=address, tls=Tls(ca_file=old.ca_file), retry=ONCE) as other, pytest.raises(Unavailable):
            other.ask(b"cat", "what?")


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with (
        Client(tls=Tls(ca_file=tmp_path / "gone.pem")) as client,
        pytest.raises(InvalidArgument, match=r"tls\.ca_file: .*gone"),
    ):
        client.ask(b"cat", "what?")


def test_the_page_shows_its_services_the_certificate_that_it_was_given(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("page@example.org")
    settings = PageSettings(
        decoder_tls_ca_file=authority.ca_file, decoder_tls_cert_file=own.cert_file, decoder_tls_key_file=own.key_file
    )
    with (
        serving(ScriptedDeployment(), credentials=credentials(authority, clients=authority)) as address,
        Client(server=address, tls=settings.decoder_tls) as client,
    ):
        assert client.ask(b"cat", "what?").text == "1 image(s): what?"
    with pytest.raises(ValueError, match="`decoder_tls_cert_file` and `decoder_tls_key_file` go together"):
        PageSettings(decoder_tls_cert_file=own.cert_file)
