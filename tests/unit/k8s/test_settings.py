"""The services load the settings of everything that is applied, with files of the tests' in place of mounted ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway_service.config import GatewaySettings
from gateway_service.wiring import check_open
from tests.support.manifests.mounted import Mounts
from tests.support.manifests.objects import SERVICES
from tests.support.manifests.rendering import APPLIED, PARTS, rendered
from vscan.cache.settings import check_cache_settings
from vscan.config import load_settings
from vscan.errors import StartupError
from vscan.rpc.identities import parse_identities


def _loaded(name: str, service: str, mounts: Mounts, monkeypatch: pytest.MonkeyPatch, **changes: str) -> Any:
    for variable, value in (mounts.environment(rendered(name), service) | changes).items():
        monkeypatch.setenv(variable, value)
    settings: Any = load_settings(SERVICES[service])
    check_cache_settings(settings)
    return settings


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("name", [*APPLIED, *PARTS])
def test_they_load(name: str, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _loaded(name, service, Mounts(tmp_path), monkeypatch)
    assert settings.insecure == (settings.tls_cert_file is None)
    assert settings.cache_secret_file is not None
    assert settings.redis_password_file is not None
    assert settings.otlp_metrics is False
    if "production" in name:
        assert settings.redis_url.startswith("rediss")
        assert settings.device == "cuda"
        assert str(settings.model).startswith("/models/llava-1.5-")


@pytest.mark.parametrize("name", [name for name in (*APPLIED, *PARTS) if "gateway" in name or "overlays" in name])
def test_a_gateway_loads_its_own_and_may_start(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered(name)
    if not any(one["metadata"]["name"] == "gateway" and one["kind"] == "Deployment" for one in objects):
        assert name in ("overlays/gpu", "production without gateway")
        return
    for variable, value in Mounts(tmp_path).environment(objects, "gateway").items():
        monkeypatch.setenv(variable, value)
    settings = load_settings(GatewaySettings)
    check_open(settings)
    guarded = "production" in name
    assert (settings.require_token, settings.decoder_tls, settings.insecure) == (guarded, guarded, not guarded)


@pytest.mark.parametrize("url", ["redis://vscan@10.0.0.5:6379/0", "redis://vscan@redis:6379/0"])
def test_an_external_redis_in_plaintext_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartupError, match="TLS"):
        _loaded("production with external-redis", "encoder", Mounts(tmp_path), monkeypatch, VSCAN_ENCODER_REDIS_URL=url)


@pytest.mark.parametrize("scheme", ["rediss", "rediss+sentinel", "rediss+cluster"])
def test_the_kinds_that_its_page_names_are_taken(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{scheme}://vscan@a:6379/0" if scheme == "rediss" else f"{scheme}://vscan@a:26379,b:26379"
    url += "/cache" if "sentinel" in scheme else ""
    name = "production with external-redis"
    assert _loaded(name, "decoder", Mounts(tmp_path), monkeypatch, VSCAN_DECODER_REDIS_URL=url).redis_url == url


def test_the_encoder_knows_the_decoder_alone(tmp_path: Path) -> None:
    environment = Mounts(tmp_path).environment(rendered("overlays/production"), "encoder")
    identities = parse_identities(Path(environment["VSCAN_ENCODER_IDENTITIES_FILE"]).read_bytes())
    assert [(one.identity, one.speaks_for_tenants) for one in identities.callers] == [("decoder", True)]
