"""What the operator must make himself is said, every folder is listed and explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.support.manifests.objects import of_kind, services
from tests.support.manifests.rendering import APPLIED, COMPONENTS, COPIES, K8S, OVERLAYS, PARTS, rendered
from tests.support.manifests.wiring_rules import foreign_names
from vscan import __version__

NOT_APPLIED = {"components/autoscaling-hpa/prometheus-adapter-values.yaml"}  # for Helm


@pytest.mark.parametrize("name", [*APPLIED, *PARTS])
def test_what_must_be_made_before_the_first_apply_is_said(name: str) -> None:
    """On the page, and but for the two that a script makes in the README of the overlay or of a component."""
    folders = [f"components/{part}" for part in COMPONENTS if part in name]
    folders += [f"overlays/{overlay}" for overlay in OVERLAYS if overlay in name]
    readmes = "\n".join((K8S / folder / "README.md").read_text() for folder in folders)
    page = (K8S.parent / "docs" / "kubernetes.md").read_text()
    foreign = foreign_names(rendered(name))
    assert {"vscan-cache", "vscan-redis"} <= foreign
    assert not [made for made in foreign if f"`{made}`" not in page]
    assert not [made for made in foreign - {"vscan-cache", "vscan-redis"} if made not in readmes]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_says_how_its_secrets_are_made_and_its_images_named(overlay: str) -> None:
    text = (K8S / "overlays" / overlay / "README.md").read_text()
    assert "Before the first apply" in text
    assert "make_secrets.sh" in text
    images = {image["name"] for image in _kustomization(f"overlays/{overlay}")["images"]}
    assert not [name for name in images if f"{name}=" not in text]


def test_every_component_and_overlay_is_explained_and_on_the_page() -> None:
    page = (K8S.parent / "docs" / "kubernetes.md").read_text()
    for folder in [*(f"components/{name}" for name in COMPONENTS), *(f"overlays/{name}" for name in OVERLAYS)]:
        assert (K8S / folder / "README.md").is_file()
        assert f"../k8s/{folder}/README.md" in page


def test_every_file_is_listed_by_the_kustomization_beside_it() -> None:
    listed = set(NOT_APPLIED)
    for path in K8S.rglob("kustomization.yaml"):
        listed |= {str((path.parent / name).relative_to(K8S)) for name in _files(yaml.safe_load(path.read_text()))}
    found = {str(path.relative_to(K8S)) for kind in ("*.yaml", "*.toml") for path in K8S.rglob(kind)}
    assert {name for name in found if Path(name).name != "kustomization.yaml"} == {
        name for name in listed if name.endswith((".yaml", ".toml"))
    }


def _files(kustomization: dict[str, list[dict[str, str]]]) -> list[str]:
    patches = [patch["path"] for patch in kustomization.get("patches", []) if "path" in patch]
    generated = [file.partition("=")[2] for one in kustomization.get("configMapGenerator", []) for file in one["files"]]
    return [*map(str, kustomization.get("resources", [])), *patches, *generated]


def _kustomization(folder: str) -> dict[str, list[dict[str, str]]]:
    loaded: dict[str, list[dict[str, str]]] = yaml.safe_load((K8S / folder / "kustomization.yaml").read_text())
    return loaded


@pytest.mark.parametrize("name", APPLIED)
def test_the_services_images_are_of_this_release(name: str) -> None:
    objects = rendered(name)
    for service, pod, _ in services(objects):
        images = {container["image"] for container in [*pod["containers"], *pod.get("initContainers", [])]}
        variant = "-cuda" if "nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"] else ""
        assert images == {f"vscan-{service}:{__version__}{variant}"}


def test_collectors_tls_is_that_of_the_one_host() -> None:
    (ours,) = [
        one["data"]["tls.yaml"] for one in of_kind(rendered("overlays/production"), "ConfigMap") if "tls.yaml" in one["data"]
    ]
    theirs = (K8S.parent / "observability" / "otel-collector" / "tls.yaml").read_text()
    assert yaml.safe_load(ours) == yaml.safe_load(theirs)


def test_what_looks_at_every_namespace_is_there_once() -> None:
    """A second set of rules would write the same series, and Grafana takes no dashboard twice."""
    first, second = rendered("overlays/production"), rendered("production of another model")
    (rules,) = of_kind(first, "PrometheusRule")
    assert "by (namespace" in str(rules["spec"])
    assert "vscan-dashboard" in {one["metadata"]["name"] for one in of_kind(first, "ConfigMap")}
    assert not of_kind(second, "PrometheusRule")
    assert "vscan-dashboard" not in {one["metadata"]["name"] for one in of_kind(second, "ConfigMap")}


def test_the_lines_for_another_model_are_those_that_are_tried() -> None:
    text = (K8S / "overlays" / "production" / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert yaml.safe_load(block) == COPIES["production of another model"]
