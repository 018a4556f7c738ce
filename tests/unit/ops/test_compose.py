"""`compose.yaml` fits the schema, names what exists, and lets no container do more than it must. It is never brought up."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import redis
import yaml

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from gateway_service.config import GatewaySettings
from gateway_service.wiring import check_open
from page_service.config import PageSettings
from scripts.protos import ROOT
from tests.support.images.dockerfile import parse
from tests.support.redis_server import RedisServer
from vscan.cache.settings import check_cache_settings
from vscan.config import ServiceSettings, load_settings

SCHEMA = json.loads((ROOT / "tests" / "data" / "compose" / "compose-spec.json").read_text())
FILES = ("compose.yaml", "compose.gpu.yaml")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
GPU = yaml.safe_load((ROOT / "compose.gpu.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVICES: dict[str, type[ServiceSettings]] = {"encoder": EncoderSettings, "decoder": DecoderSettings}
CLIENTS: dict[str, type[ServiceSettings]] = {"gateway": GatewaySettings, "page": PageSettings}
# What others' images listen on, by what their makers say.
_OTHERS = {"redis": 6379, "prometheus": 9090, "grafana": 3000, "tempo": 3200, "otel-collector": 4317}
_TMPFS_BYTES = 2**30  # of /tmp, which counts as the container's memory
_SECRETS_AT = "/run/secrets/"


def _final(name: str) -> Any:
    return parse((ROOT / CONTAINERS[name]["build"]["dockerfile"]).read_text())[-1]


def _made_secrets(folder: Path) -> dict[str, Path]:
    subprocess.run(["sh", str(ROOT / "docker" / "make_secrets.sh"), str(folder)], check=True, capture_output=True)
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("name", FILES)
def test_it_fits_the_schema(name: str) -> None:
    jsonschema.validate(yaml.safe_load((ROOT / name).read_text()), SCHEMA)


@pytest.mark.parametrize(
    ("field", "value"), [("healthcheck", {"tests": []}), ("mem_limits", "1g"), ("depends_on", {"a": "healthy"})]
)
def test_a_wrong_field_does_not_fit(field: str, value: object) -> None:
    wrong = copy.deepcopy(COMPOSE)
    wrong["services"]["decoder"][field] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_may_do_no_more_than_it_must(name: str) -> None:
    container = CONTAINERS[name]
    assert container["read_only"]
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["pids_limit"]
    assert container["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}
    user = container["user"] if "build" not in container else _final(name).last("USER").text
    assert not user.startswith(("0", "root"))
    assert not container.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_image_has_a_version(name: str) -> None:
    image, _, tag = CONTAINERS[name]["image"].partition(":")
    assert re.search(r"\d+\.\d+", tag), image
    if "build" in CONTAINERS[name]:
        labels = dict(word.split("=", 1) for word in _final(name).last("LABEL").words)
        assert image == labels["org.opencontainers.image.title"]
        assert tag == labels["org.opencontainers.image.version"]
    if name in SERVICES:
        assert GPU["services"][name]["image"] == f"{image}:{tag}-cuda"


@pytest.mark.parametrize("name", CONTAINERS)
def test_ports_are_open_to_this_host_alone_and_somebody_listens(name: str) -> None:
    container = CONTAINERS[name]
    listens = {_OTHERS[name]} if name in _OTHERS else {int(port) for port in _final(name).last("EXPOSE").words}
    for published in container.get("ports", []):
        address, _, port = published.rpartition(":")
        assert address.startswith("127.0.0.1:")
        assert int(port) in listens
        assert "outside" in container["networks"]  # a network that leads nowhere publishes nothing
    assert COMPOSE["networks"]["inside"]["internal"]
    assert "inside" in container["networks"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_what_is_mounted_exists(name: str) -> None:
    container = CONTAINERS[name]
    for source, _, flags in ((*volume.split(":"), "")[:3] for volume in container.get("volumes", [])):
        if source.startswith("./"):
            assert (ROOT / source).exists()
            assert flags == "ro"
        else:
            assert source in COMPOSE["volumes"]
    assert set(container.get("secrets", [])) <= COMPOSE["secrets"].keys()


def test_nothing_is_copied_into_a_root_that_is_read_only() -> None:
    """A file mounts. Of `content` and `environment` Compose copies a file into the container, which the engine refuses."""
    for kind in ("configs", "secrets"):
        for source in COMPOSE.get(kind, {}).values():
            assert source.keys() == {"file"}


def test_tempo_listens_where_it_is_asked_and_keeps_what_it_gets_on_its_volume() -> None:
    config = yaml.safe_load((ROOT / "observability" / "tempo" / "config.yaml").read_text())
    assert config["server"]["http_listen_port"] == _OTHERS["tempo"]
    receiver = config["distributor"]["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"]
    to = CONTAINERS["otel-collector"]["environment"]["TRACES_ENDPOINT"]
    assert to == f"tempo:{receiver.rpartition(':')[2]}"
    (volume,) = [volume for volume in CONTAINERS["tempo"]["volumes"] if volume.partition(":")[0] in COMPOSE["volumes"]]
    paths = (config["storage"]["trace"]["wal"]["path"], config["storage"]["trace"]["local"]["path"])
    assert all(path.startswith(volume.partition(":")[2] + "/") for path in paths)


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("file", [COMPOSE, GPU], ids=FILES)
def test_there_are_as_many_threads_as_the_limit_has_processors(name: str, file: dict[str, Any]) -> None:
    container = file["services"][name]
    cpus = container["deploy"]["resources"]["limits"]["cpus"]
    counted = {"TORCH_THREADS", "IMAGE_WORKERS"} & {field.upper() for field in SERVICES[name].model_fields}
    assert {container["environment"][f"VSCAN_{name.upper()}_{setting}"] for setting in counted} == {cpus}


def test_the_secrets_are_those_that_the_script_makes(tmp_path: Path) -> None:
    made = _made_secrets(tmp_path / "secrets")
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {f"./secrets/{name}" for name in made}
    assert all(path.stat().st_size >= 32 for path in made.values())
    again = subprocess.run(
        ["sh", str(ROOT / "docker" / "make_secrets.sh"), str(tmp_path / "secrets")], capture_output=True, check=False
    )
    assert again.returncode == 1
    assert b"exists already" in again.stderr
    assert "secrets/" in (ROOT / ".gitignore").read_text().splitlines()


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("over", [{}, GPU["services"]], ids=FILES)
def test_the_service_takes_every_setting(
    name: str, over: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = _made_secrets(tmp_path / "secrets")
    environment = _final(name).environment | CONTAINERS[name]["environment"] | over.get(name, {}).get("environment", {})
    for variable, value in environment.items():
        if variable.startswith("VSCAN_"):
            plain = re.sub(r"\$\{\w+:-(.*)\}", r"\1", str(value))
            secret = plain.removeprefix(_SECRETS_AT)
            monkeypatch.setenv(variable, str(made[secret]) if plain.startswith(_SECRETS_AT) else plain)
            assert not plain.startswith(_SECRETS_AT) or secret in CONTAINERS[name]["secrets"]
    settings: Any = load_settings(SERVICES[name])
    check_cache_settings(settings)
    assert settings.drain_delay_seconds + settings.drain_seconds + 15 < int(
        CONTAINERS[name]["stop_grace_period"].removesuffix("s")
    )
    # Images and videos wait apart. The rest is for the model, its arithmetic and the process.
    queues = 2 * settings.max_queue_bytes if name == "encoder" else settings.kv_cache_bytes or 0
    limit = int({**CONTAINERS, **over}[name]["deploy"]["resources"]["limits"]["memory"].removesuffix("g")) * 2**30
    assert _TMPFS_BYTES + settings.max_request_bytes + queues + settings.cache_memory_bytes <= limit // 2
    assert environment["http_proxy"] == environment["https_proxy"] == ""
    assert settings.otlp_endpoint == f"http://otel-collector:{_OTHERS['otel-collector']}"
    ports = [int(bind.rpartition(":")[2]) for bind in (settings.bind, settings.health_bind, settings.metrics_bind)]
    assert ports == [int(port) for port in _final(name).last("EXPOSE").words]


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_of_the_services_takes_every_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    container = CONTAINERS[name]
    environment = _final(name).environment | container["environment"]
    for variable, value in environment.items():
        monkeypatch.setenv(variable, str(value)) if variable.startswith("VSCAN_") else None
    settings: Any = load_settings(CLIENTS[name])
    assert environment["http_proxy"] == environment["https_proxy"] == ""
    assert settings.otlp_endpoint == f"http://otel-collector:{_OTHERS['otel-collector']}"
    grpc = {one: CONTAINERS[one]["environment"][f"VSCAN_{one.upper()}_BIND"].rpartition(":")[2] for one in SERVICES}
    assert settings.decoder_address == (f"dns:///decoder:{grpc['decoder']}",)
    if name == "page":
        assert settings.encoder_address == (f"dns:///encoder:{grpc['encoder']}",)
        assert settings.redis_address == f"redis:{_OTHERS['redis']}"
        return
    check_open(settings)
    assert settings.hosts is not None  # or any page's script could ask it from this host's browser
    assert settings.drain_seconds + 15 < int(container["stop_grace_period"].removesuffix("s"))
    limit = int(container["deploy"]["resources"]["limits"]["memory"].removesuffix("g")) * 2**30
    assert 4 * settings.max_bodies_bytes <= limit // 2


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_is_the_same_image_with_its_own_start_and_check(name: str) -> None:
    container, image = CONTAINERS[name], _final("gateway")
    started = container.get("entrypoint") or json.loads(image.last("ENTRYPOINT").text)
    assert started == ["tini", "--", "python", "-m", f"{name}_service"]
    assert (container["image"], container["build"]) == (CONTAINERS["gateway"]["image"], CONTAINERS["gateway"]["build"])
    (port,) = container["ports"]
    path = {"gateway": "", "page": "/"}[name]
    assert container["healthcheck"]["test"] == ["CMD", "vscan", "health", f"http://127.0.0.1:{port.rpartition(':')[2]}{path}"]


def test_addresses_are_of_containers() -> None:
    encoder, decoder = (CONTAINERS[name]["environment"] for name in SERVICES)
    assert decoder["VSCAN_DECODER_ENCODER_ADDRESS"] == f"dns:///encoder:{encoder['VSCAN_ENCODER_BIND'].rpartition(':')[2]}"
    assert {encoder["VSCAN_ENCODER_REDIS_URL"], decoder["VSCAN_DECODER_REDIS_URL"]} == {
        f"redis://vscan@redis:{_OTHERS['redis']}/0"
    }
    prometheus = yaml.safe_load((ROOT / "observability/prometheus/prometheus.yml").read_text())
    targets = {target for job in prometheus["scrape_configs"] for one in job["static_configs"] for target in one["targets"]}
    served = {
        f"{name}:{CONTAINERS[name]['environment'][f'VSCAN_{name.upper()}_METRICS_BIND'].rpartition(':')[2]}"
        for name in (*SERVICES, "gateway")
    }
    assert targets == served | {f"prometheus:{_OTHERS['prometheus']}"}
    sources = yaml.safe_load((ROOT / "observability/grafana/provisioning/datasources/vscan.yaml").read_text())["datasources"]
    assert {source["url"] for source in sources} == {f"http://{name}:{_OTHERS[name]}" for name in ("prometheus", "tempo")}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_healthy_when_it_is_ready(name: str) -> None:
    health = CONTAINERS[name]["environment"][f"VSCAN_{name.upper()}_HEALTH_BIND"].rpartition(":")[2]
    assert CONTAINERS[name]["healthcheck"]["test"] == ["CMD", "vscan", "health", f"127.0.0.1:{health}"]


def test_who_waits_for_health_waits_for_one_that_is_checked() -> None:
    for container in CONTAINERS.values():
        for name, how in container.get("depends_on", {}).items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in CONTAINERS[name]


def test_the_gpu_file_changes_what_is_there() -> None:
    assert GPU["services"].keys() == SERVICES.keys()
    for container in GPU["services"].values():
        assert container["build"]["args"] == {"VARIANT": "cuda"}
        (device,) = container["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]


def test_redis_lets_the_services_do_what_they_need_and_nobody_else(tmp_path: Path) -> None:
    made = _made_secrets(tmp_path / "secrets")
    may = made["redis_users"].read_text().splitlines()[1].partition("resetchannels ")[2]
    assert f"resetchannels {may}\n" in (ROOT / "docs" / "cache.md").read_text()
    command = CONTAINERS["redis"]["command"]
    options = [str(made["redis_users"]) if word == f"{_SECRETS_AT}redis_users" else word for word in command[1:]]
    with RedisServer(options=options) as server:
        with redis.Redis.from_url(server.url) as anybody:
            assert anybody.ping()
            with pytest.raises(redis.exceptions.NoPermissionError):
                anybody.get("vscan:vt:x")
        with redis.Redis.from_url(server.url, username="vscan", password=made["redis_password"].read_text()) as ours:
            assert ours.set("vscan:vt:x", "1", ex=9)
            assert ours.mget("vscan:vt:x") == [b"1"]
            with pytest.raises(redis.exceptions.NoPermissionError):
                ours.flushall()
            with pytest.raises(redis.exceptions.NoPermissionError):
                ours.set("other", "1")
