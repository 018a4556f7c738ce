"""Everything under `k8s/` that can be rendered: base, overlays, each component over the base, combinations that pages name."""

from __future__ import annotations

import os
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.kustomize import NoKustomize, render
from scripts.protos import ROOT

Objects = list[dict[str, Any]]

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
# Combinations beside the overlays: (what they begin with, components added, components left out).
_COMBINATIONS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "gpu with gateway": ("overlays/gpu", ("gateway",), ()),
    "production without gateway": ("overlays/production", (), ("gateway",)),
    "production with external-redis": ("overlays/production", ("external-redis",), ()),
    "production with autoscaling-hpa": ("overlays/production", ("autoscaling-hpa",), ("autoscaling",)),
}


def _without(version: str, kind: str, name: str) -> dict[str, Any]:
    patch = f"{{$patch: delete, apiVersion: {version}, kind: {kind}, metadata: {{name: {name}}}}}"
    return {"target": {"kind": kind, "name": name}, "patch": patch}


# A copy of production for another model beside it: the lines that its README shows.
OTHER_MODEL = "/models/llava-1.5-13b-hf"
COPIES: dict[str, dict[str, Any]] = {
    "production of another model": {
        "namespace": "green",
        "patches": [
            {
                "target": {"kind": "Job", "name": "fill-model"},
                "patch": f"- {{op: replace, path: /spec/template/spec/containers/0/env/1/value, value: {OTHER_MODEL}}}",
            },
            _without("monitoring.coreos.com/v1", "PrometheusRule", "vscan"),
            _without("v1", "ConfigMap", "vscan-dashboard"),
        ],
    }
}
# Deployments as they are applied, and what they are made of.
APPLIED = ["base", *(f"overlays/{name}" for name in OVERLAYS), *_COMBINATIONS, *COPIES]
PARTS = [f"base with {name}" for name in COMPONENTS]


def rendered(name: str) -> Objects:
    """The objects of one of APPLIED or PARTS, to change at will. Skips without kubectl; where CI is set, fails."""
    return deepcopy(_rendered(name))


@cache
def _rendered(name: str) -> Objects:
    try:
        if name in _COMBINATIONS or name in COPIES or name in PARTS:
            return _render_combination(name)
        return render(K8S / name)
    except NoKustomize as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def _render_combination(name: str) -> Objects:
    start, added, left_out = _COMBINATIONS.get(name) or ("base", (name.removeprefix("base with "),), ())
    if name in COPIES:
        start, added = "overlays/production", ()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        own = _kustomization(folder, K8S / start, added, left_out)
        own |= COPIES.get(name, {})
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
        return render(folder)


def _kustomization(folder: Path, start: Path, added: tuple[str, ...], left_out: tuple[str, ...]) -> dict[str, Any]:
    """The start's own where it is an overlay, with other components; else one that begins with it."""
    own = yaml.safe_load((start / "kustomization.yaml").read_text())
    if "components" not in own:
        own = {"apiVersion": own["apiVersion"], "kind": own["kind"], "namespace": own["namespace"], "resources": ["."]}
    components = [path for path in own.get("components", []) if Path(path).name not in left_out]

    def moved(path: Path) -> str:
        return os.path.relpath(path.resolve(), folder)

    own["resources"] = [moved(start / path) for path in own["resources"]]
    own["components"] = [moved(start / path) for path in components] + [moved(K8S / "components" / path) for path in added]
    return dict(own)
