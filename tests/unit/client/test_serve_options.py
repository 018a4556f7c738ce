"""Settings as options of `vscan serve`."""

import pytest

from vscan.errors import InvalidArgument
from vscan_client.cli.serve import assignment, options_in
from vscan_client.cli.up import by_service


def test_every_setting_is_an_option() -> None:
    given = ["--max-queue", "8", "--drain-seconds=2", "--insecure", "--tls-key-file", "key.pem", "--reflection"]
    assert dict(options_in(given)) == {
        "max_queue": "8",
        "drain_seconds": "2",
        "insecure": "true",
        "tls_key_file": "key.pem",
        "reflection": "true",
    }


@pytest.mark.parametrize("stray", ["stray", "-x", "--"])
def test_what_is_no_option_is_refused(stray: str) -> None:
    with pytest.raises(InvalidArgument, match="not an option"):
        dict(options_in(["--max-queue", "8", stray]))


def test_an_assignment() -> None:
    assert assignment("max-queue=8") == assignment("MAX_QUEUE=8") == ("max_queue", "8")
    assert assignment("redis_url=") == ("redis_url", "")
    assert assignment("a=b=c") == ("a", "b=c")
    for bad in ("max_queue", "=8"):
        with pytest.raises(InvalidArgument, match="NAME=VALUE"):
            assignment(bad)


def test_settingsby_service() -> None:
    assert by_service(["decoder.max_queue=8", "encoder.max-queue=4"], device="cpu", dtype=None) == {
        "encoder": {"device": "cpu", "max_queue": "4"},
        "decoder": {"device": "cpu", "max_queue": "8"},
    }
    assert by_service(["gateway.max-callers=9"], gateway=True, device="cpu")["gateway"] == {"max_callers": "9"}
    for bad in ("max_queue=8", "redis.port=1", "decoder.max_queue", "gateway.max_callers=9"):
        with pytest.raises(InvalidArgument, match="-s"):
            by_service([bad])
