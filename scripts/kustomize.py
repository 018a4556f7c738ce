"""Renders a folder of `k8s/`: with kubectl where there is one, else by reading the resources it lists.

A base lists resources and nothing more, so for it the two give the same; anything else needs kubectl.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

_KNOWN_KEYS = {"apiVersion", "kind", "resources"}


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects that `kubectl apply -k` would send.

    Raises:
        ValueError: there is no kubectl, and the folder does more than list resources.
    """
    kubectl = shutil.which("kubectl")
    return render_with_kubectl(folder, kubectl) if kubectl else render_resources(folder)


def render_with_kubectl(folder: Path, kubectl: str) -> list[dict[str, Any]]:
    """As kubectl does it; raises CalledProcessError if it refuses the folder."""
    done = subprocess.run([kubectl, "kustomize", str(folder)], check=True, capture_output=True, text=True)
    return list(yaml.safe_load_all(done.stdout))


def render_resources(folder: Path) -> list[dict[str, Any]]:
    """As kubectl does it for a folder that only lists resources."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if more := set(kustomization) - _KNOWN_KEYS:
        raise ValueError(f"{folder}: {', '.join(sorted(more))} needs kubectl")
    objects: list[dict[str, Any]] = []
    for name in kustomization["resources"]:
        path = folder / name
        objects += render_resources(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    return objects
