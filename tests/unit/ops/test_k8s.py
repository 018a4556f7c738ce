"""`k8s/base` renders, fits the API's schema, and says nothing that the services do not know."""

import copy
import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from decoder_service.config import DecoderSettings
from encoder_service.config import EncoderSettings
from scripts.kustomize import render, render_resources, render_with_kubectl
from scripts.protos import ROOT
from vscan.cache.settings import check_cache_settings
from vscan.config import ServiceSettings, load_settings, variable_name
from vscan.rpc.readiness import LIVENESS

BASE = ROOT / "k8s" / "base"
OBJECTS = render(BASE)
# The oldest release whose gRPC probes are stable, and the newest that the validator knows.
RELEASES = ["1.27", kubernetes_validate.latest_version()]
SERVICES: dict[str, type[ServiceSettings]] = {"encoder": EncoderSettings, "decoder": DecoderSettings}
COMPONENTS = [*SERVICES, "redis"]


def _object(kind: str, name: str) -> dict[str, Any]:
    (found,) = [o for o in OBJECTS if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return found


def _container(name: str) -> dict[str, Any]:
    containers: list[dict[str, Any]] = _object("Deployment", name)["spec"]["template"]["spec"]["containers"]
    (container,) = containers
    return container


def _environment(name: str) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in _container(name)["env"]}


def _sorted(objects: list[dict[str, Any]]) -> list[str]:
    return sorted(yaml.safe_dump(o) for o in objects)


def test_each_component_has_a_deployment_and_a_service() -> None:
    expected = {(kind, name) for kind in ("Deployment", "Service") for name in COMPONENTS}
    assert {(o["kind"], o["metadata"]["name"]) for o in OBJECTS} == expected


def test_reading_the_resources_gives_what_kubectl_gives() -> None:
    ours = _sorted(render_resources(BASE))
    kubectl = shutil.which("kubectl")
    assert ours == _sorted(render_with_kubectl(BASE, kubectl) if kubectl else OBJECTS)


def test_a_folder_that_does_more_is_not_misread(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\nnamePrefix: other-\n")
    with pytest.raises(ValueError, match="namePrefix"):
        render_resources(tmp_path)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("resource", OBJECTS, ids=lambda o: f"{o['kind']}-{o['metadata']['name']}")
def test_it_fits_the_schema(resource: dict[str, Any], release: str) -> None:
    kubernetes_validate.validate(resource, release, strict=True)


@pytest.mark.parametrize(("path", "value"), [(("spec", "replica"), 1), (("spec", "replicas"), "one")])
def test_a_wrong_field_does_not_fit(path: tuple[str, str], value: object) -> None:
    wrong = copy.deepcopy(_object("Deployment", "encoder"))
    wrong[path[0]][path[1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


@pytest.mark.parametrize("name", SERVICES)
def test_the_service_takes_every_setting(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The secret's place in the cluster is a file of the test's here; the rest is loaded as it stands.
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 2)
    for variable, value in _environment(name).items():
        monkeypatch.setenv(variable, str(secret) if variable.endswith("_CACHE_SECRET_FILE") else value)
    settings: Any = load_settings(SERVICES[name])
    check_cache_settings(settings)
    assert settings.insecure
    assert settings.redis_url == f"redis://redis:{_port_of('redis')}/0"
    grace_seconds = _object("Deployment", name)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert settings.drain_delay_seconds + settings.drain_seconds + 15 < grace_seconds  # and some for the end


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_the_default_ones(name: str) -> None:
    default_port = int(SERVICES[name].model_fields["bind"].default.rpartition(":")[2])
    container = _container(name)
    assert _port_of(name) == default_port
    assert container["ports"][0] == {"name": "grpc", "containerPort": default_port}
    assert _environment(name)[variable_name(SERVICES[name], "bind")] == f"0.0.0.0:{default_port}"


@pytest.mark.parametrize("name", SERVICES)
def test_probes_ask_the_port_for_health_alone(name: str) -> None:
    container = _container(name)
    (health,) = [port["containerPort"] for port in container["ports"] if port["name"] == "health"]
    assert _environment(name)[variable_name(SERVICES[name], "health_bind")] == f"0.0.0.0:{health}"
    assert container["readinessProbe"]["grpc"] == {"port": health}
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": health, "service": LIVENESS}
    (exposed,) = _object("Service", name)["spec"]["ports"]
    assert exposed["targetPort"] == "grpc"


def test_the_decoder_is_pointed_at_the_encoder() -> None:
    address = _environment("decoder")[variable_name(DecoderSettings, "encoder_address")]
    assert address == f"dns:///encoder:{_port_of('encoder')}"


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_service_finds_its_pods(name: str) -> None:
    spec = _object("Deployment", name)["spec"]
    service = _object("Service", name)["spec"]
    assert service["selector"] == spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    assert {port["targetPort"] for port in service["ports"]} <= {port["name"] for port in _container(name)["ports"]}


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_pod_is_an_ordinary_user_with_bounded_memory(name: str) -> None:
    pod = _object("Deployment", name)["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["enableServiceLinks"]
    assert _container(name)["resources"]["limits"]["memory"]


@pytest.mark.parametrize("name", SERVICES)
def test_the_cache_secret_is_a_mounted_file(name: str) -> None:
    (mount,) = _container(name)["volumeMounts"]
    secret_file = _environment(name)[variable_name(SERVICES[name], "cache_secret_file")]
    assert Path(secret_file).parent == Path(mount["mountPath"])
    (volume,) = _object("Deployment", name)["spec"]["template"]["spec"]["volumes"]
    assert volume["name"] == mount["name"]
    assert volume["secret"]["secretName"] in (BASE / "kustomization.yaml").read_text()  # where it says how to make it


def _port_of(name: str) -> int:
    (port,) = _object("Service", name)["spec"]["ports"]
    return int(port["port"])
