"""Names as browsers write them, and as others do who would like to be taken for one."""

import pytest

from gateway_service.config import GatewaySettings
from page_service.config import PageSettings
from vscan.config import load_settings
from vscan.errors import StartupError
from vscan.http.host_names import KnownHosts, host_of, host_of_origin, is_same_place

KNOWN = KnownHosts(("demo.example", "xn--bcher-kva.example"))


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:7080", "localhost.", "127.0.0.1:1", "127.8.9.1", "[::1]", "[::1]:7080", "[0:0:0:0:0:0:0:1]"),
        *("demo.example", "Demo.Example:443", "demo.example.", "demo.example.:80", "xn--bcher-kva.example", "demo.example:"),
    ],
)
def test_its_own_names_are_known(host: str) -> None:
    assert KNOWN.has(host_of(host))


@pytest.mark.parametrize(
    "host",
    [
        *("", ".", ":80", "evil.example", "demo.example.evil.example", "evil-demo.example", "127.0.0.1.evil.example"),
        *(
            "demo.example..",
            "a@demo.example",
            "demo.example@evil.example",
            "demo.example/x",
            "demo.example\\x",
            "//demo.example",
        ),
        *(
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:8a",
            "demo.example:80:80",
            "demo.example:8a",
            "demo.example, evil.example",
            "demo.example ",
        ),
        *(
            "0.0.0.0",
            "[::]",
            "[::ffff:10.0.0.1]",
            "2130706433x",
            "b\u00fccher.example",
            "localhost\u3002",
            "ｌocalhost",
            "1.1.1.1",
        ),
    ],
)
def test_others_are_not(host: str) -> None:
    assert not KNOWN.has(host_of(host))


@pytest.mark.parametrize(
    "origin", ["null", "", "localhost", "file://", "file://localhost", "//localhost", "http://", "http:localhost"]
)
def test_what_is_no_sites_origin_has_no_name(origin: str) -> None:
    assert host_of_origin(origin) is None
    assert not is_same_place(origin, "localhost")


@pytest.mark.parametrize(
    ("origin", "host", "is_same"),
    [
        ("http://localhost:7080", "localhost:7080", True),
        ("http://LOCALHOST:7080", "localhost:7080", True),
        ("http://[::1]:7080", "[::1]:7080", True),
        ("https://demo.example", "demo.example:443", True),
        ("http://demo.example:80", "demo.example", True),
        ("https://demo.example", "demo.example", True),
        ("http://localhost:7081", "localhost:7080", False),
        ("http://localhost", "localhost:7080", False),
        ("http://127.0.0.1:7080", "localhost:7080", False),
        ("https://demo.example", "demo.example:80", False),
        ("http://demo.example:7080.evil.example", "demo.example:7080", False),
        ("http://demo.example:7080/", "demo.example:7080", False),
        ("http://a@demo.example:7080", "demo.example:7080", False),
        ("ftp://demo.example:7080", "demo.example:7080", False),
    ],
)
def test_an_origin_is_a_name_and_a_port(origin: str, host: str, is_same: bool) -> None:
    assert is_same_place(origin, host) is is_same


@pytest.mark.parametrize("name", ["https://demo.example", "demo.example:443", "b\u00fccher.example", "a b", "*", "[::1]:80"])
@pytest.mark.parametrize("settings", [PageSettings, GatewaySettings])
def test_a_name_that_no_browser_sends_is_refused_at_start(settings: type[PageSettings | GatewaySettings], name: str) -> None:
    with pytest.raises(StartupError, match=r"allowed-hosts"):
        load_settings(settings, {"allowed_hosts": name})


def test_names_are_taken_as_people_write_them() -> None:
    assert load_settings(PageSettings, {"allowed_hosts": "Demo.Example, fd00::1, [fd00::2],other."}).allowed_hosts == (
        "demo.example",
        "fd00::1",
        "fd00::2",
        "other",
    )
